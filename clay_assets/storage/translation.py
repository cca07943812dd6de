"""Exceptions of obstore and boto3 → this package's errors, with cause and remedy.

obstore has already retried. Messages consist of the server's code and text, credentials are redacted,
and the original exceptions are not chained, because they hold the request.
"""

import re

from clay_assets.storage.errors import (
    AccessDenied,
    BucketMissing,
    Misconfigured,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    StoreDenied,
    TransferFailed,
)
from clay_assets.storage.types import S3Options

CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or the store's own fields; "
    "for a public bucket set use_unsigned_session.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login; "
    "for a public bucket set use_unsigned_session.",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; "
    "for a public container set use_unsigned_session.",
}
ENDPOINT = {
    "s3": "Check AWS_ENDPOINT_URL_S3 or endpoint_url, and the network.",
    "gs": "Check STORAGE_EMULATOR_HOST, if it is set, and the network.",
    "az": "Check AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ENDPOINT, and the network.",
}


class NotPartial(StorageError):
    """The server answers a range request as if it were for the whole object."""


class BrokenAnswer(TransferFailed):
    """The response is truncated, too long, or of another object: worth a retry."""


class CutShort(BrokenAnswer):
    """The body ended early, and obstore's requests for the rest failed."""


NO_BUCKET = "Check the bucket's name and the endpoint, or create the bucket."
REGION = "Set AWS_REGION or region_name to the bucket's region."
DENIED = (
    "These credentials may not do this (required: s3:ListBucket, GetObject, PutObject, AbortMultipartUpload, "
    "DeleteObject or equivalents), or the object is missing and they may not list the bucket. {credentials}"
)
Rules = tuple[tuple[str, type[StorageError], str], ...]
# By the server's error code, or by the HTTP status if the response has no body, as for HEAD.
# S3 and Google Cloud: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# Azure: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
SERVER_SIDE: Rules = (
    ("NoSuchBucket|ContainerNotFound", BucketMissing, NO_BUCKET),
    ("ResourceNotFound", BucketMissing, "There is no such container, or it is not public. {credentials}"),
    ("InvalidAccessKeyId", StoreDenied, "The server does not know this access key. {credentials}"),
    ("SignatureDoesNotMatch", StoreDenied, "The secret key does not belong to the access key. {credentials}"),
    ("AuthenticationFailed", StoreDenied, "The account key or token is not valid. {credentials}"),
    ("PublicAccessNotPermitted", StoreDenied, "The container is not public. {credentials}"),
    ("ExpiredToken", StoreDenied, "The temporary credentials have expired: renew them."),
    ("InvalidToken", StoreDenied, "The session token is not valid. {credentials}"),
    ("RequestTimeTooSkewed", StoreDenied, "This machine's clock is wrong: set it."),
    ("UserProjectMissing", StoreDenied, "The bucket is requester-pays, which is supported for S3 only."),
    ("InvalidObjectState|BlobArchived", AccessDenied, "The object is archived: restore it first."),
    ("EntityTooLarge", StorageError, "The server does not accept objects, or parts, of this size."),
    ("InvalidBucketName|InvalidResourceName", Misconfigured, "Correct the name of the bucket or container."),
    ("PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint", Misconfigured, REGION),
    (" 301", Misconfigured, REGION),
    (" 404", ObjectMissing, "There is no such object. If it was listed, it has been deleted since."),
    (" 412", ObjectChanged, "It changed since it was listed. List it again, and run again."),
    (" 400", StoreDenied, f"Usually expired credentials or another region. {{credentials}} {REGION}"),
    (" 401", StoreDenied, DENIED),
    (" 403", AccessDenied, DENIED),
    (" (408|429|5..)", TransferFailed, "The server is busy or failing: run again later."),
    ("", StorageError, ""),
)
# By obstore's message, if the server gave no usable response.
CLIENT_SIDE: Rules = (
    ("non-partial", NotPartial, ""),
    ("list response", BrokenAnswer, "{endpoint}"),
    ("response body error", CutShort, "{endpoint}"),
    ("without LOCATION", Misconfigured, REGION),
    ("Content-Range|Requested", BrokenAnswer, "The server cannot resume a transfer that broke. {endpoint}"),
    ("ontent-Length", StorageError, "The server did not report the object's size. Use a server that does."),
    ("nvalid path|ould not parse path", StorageError, "Rename or delete the object, or correct its name."),
    ("must be specified", Misconfigured, "{credentials}"),
    ("certificate|Certificate", TransferFailed, "If the certificate is your own, name it in AWS_CA_BUNDLE."),
    ("redential|token|metadata", StoreDenied, "{credentials}"),
    ("HTTP error|Client error", TransferFailed, "{endpoint}"),
    ("", StorageError, ""),
)
# By the class of boto3's exception.
SDK: Rules = (
    ("Credential|Profile|Token|SSO|Login", StoreDenied, "{credentials}"),
    ("", Misconfigured, "Correct the store's address or its settings."),
)

# The part of a URL before the @, which may hold slashes; AWS access keys; signatures of Azure.
SECRETS = re.compile(r"(?<=://)\S+(?=@)|\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b|(?<=[?&]sig=)[^&\s]+")


def translate_error(error: Exception, url: str, options: S3Options, *, of_store: bool) -> StorageError:
    """Return the error to raise for an exception of obstore or boto3 about `url`.

    Redacts the secrets of `options`. Raises `error` itself if it is of another origin, so that bugs stay
    visible. `of_store`: a refusal affects the whole store, as for listings and writes.
    """
    if isinstance(error, StorageError):
        return error
    kind: type[StorageError]
    cause, name = f"{error}", type(error).__name__
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, TimeoutError):  # raised by `interruption`
        kind, remedy = TransferFailed, "{endpoint}"
    elif module in ("botocore", "boto3") or (isinstance(error, ValueError) and "path" not in cause):
        cause = cause or name
        kind, remedy = _first(SDK, name)
    elif module == "obstore" or isinstance(error, (FileNotFoundError, ValueError)):
        kind, cause, remedy = _of_obstore(cause)
        if kind is AccessDenied and remedy is DENIED and of_store:
            kind = StoreDenied
    else:
        raise error
    for secret in (options.aws_secret_access_key, options.aws_session_token, options.aws_access_key_id):
        if secret and len(secret) >= 8:  # the "a" of a test server must not be redacted in every word
            cause = cause.replace(secret, "***")
    scheme = url.partition(":")[0]
    remedy = remedy.format(credentials=CREDENTIALS[scheme], endpoint=ENDPOINT[scheme])
    return kind(f"{url}: {SECRETS.sub('***', cause).rstrip('.')}. {remedy}".rstrip())


def _of_obstore(text: str) -> tuple[type[StorageError], str, str]:
    """Return class, cause and remedy of an obstore error, whose text quotes the server's response."""
    text, _, debug = text.partition("\n\nDebug source:")
    request = re.search(r"Error performing ([A-Z]+ [^\s?]+)", text)
    request_line = request[1] if request else "the request"
    if status := re.search(r"(?:status code: |\(code: )(\d{3})", text):
        found = re.findall(r"<(Code|Message)>(.*?)</\1>", text, re.DOTALL)
        tags = dict(reversed(found))  # the first of each: further ones are of nested errors
        code, message = tags.get("Code", ""), " ".join(tags.get("Message", "without a message").split())
        kind, remedy = _first(SERVER_SIDE, f"{code} {status[1]}")
        cause = f"the server answered {request_line} with {code or status[1]}, {message}"
        return kind, f"{cause}, in every attempt" if kind is TransferFailed else cause, remedy
    reason = text.rpartition(" - ")[2]
    causes = re.findall(r'message: "([^"]+)"|(Invalid\w*Certificate\w*\(\s*\w+)|kind: (\w+)', debug)
    detail = next((cause for found in reversed(causes) for cause in found if cause), "")
    kind, remedy = _first(CLIENT_SIDE, f"{reason} {detail}")
    if issubclass(kind, TransferFailed):
        return kind, f"{request_line} failed in every attempt: {reason} ({detail})", remedy
    return kind, reason, remedy


def _first(rules: Rules, text: str) -> tuple[type[StorageError], str]:
    """Return class and remedy of the first rule whose pattern occurs in a text."""
    return next((kind, remedy) for pattern, kind, remedy in rules if re.search(pattern, text))
