"""What obstore and boto3 raise → one of this package's errors, in words a person can act on.

Belongs here: which answers are of the whole store, and the advice for each. Does not belong here: retrying,
which obstore has done by then.
Messages are made anew from the server's code and text, with anything that looks like a credential struck out,
and the client's exceptions are not chained: they hold the request.
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
    """The server answers a GET of a part as if it were the whole."""


class BrokenAnswer(TransferFailed):
    """The server's answer is not what it has: cut, too long, or of another object."""


class CutShort(BrokenAnswer):
    """An answer ended early, and the server did not continue it, which obstore has asked for."""


SET_REGION = "Set AWS_REGION or region_name to the bucket's region."
CHANGED = (ObjectChanged, "It changed since it was listed. List it again, and run again.")
NO_BUCKET = (BucketMissing, "Check the bucket's name and the endpoint, or create the bucket.")
NO_KEY = (ObjectMissing, "There is no such object. If it was listed, it has been deleted since.")

# Answers by error code. S3 and Google Cloud: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# Azure: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
# {credentials} stands for the cloud's advice above. A HEAD has no body, so its code is the HTTP status.
ANSWERS: dict[str, tuple[type[StorageError], str]] = {
    "NoSuchBucket": NO_BUCKET,
    "ContainerNotFound": NO_BUCKET,
    "ResourceNotFound": (BucketMissing, "There is no such container, or it is not public. {credentials}"),
    "NoSuchKey": NO_KEY,
    "BlobNotFound": NO_KEY,
    "404": NO_KEY,
    "412": CHANGED,
    "InvalidAccessKeyId": (StoreDenied, "The server does not know this access key. {credentials}"),
    "SignatureDoesNotMatch": (
        StoreDenied,
        "The secret key does not belong to the access key. {credentials}",
    ),
    "AuthenticationFailed": (StoreDenied, "The account key or token is not valid. {credentials}"),
    "PublicAccessNotPermitted": (StoreDenied, "The container is not public. {credentials}"),
    "ExpiredToken": (StoreDenied, "The temporary credentials have expired: renew them."),
    "InvalidToken": (StoreDenied, "The session token is not valid. {credentials}"),
    "RequestTimeTooSkewed": (StoreDenied, "This machine's clock is wrong: set it."),
    "UserProjectMissing": (StoreDenied, "The bucket asks the reader to pay, which is offered for S3 alone."),
    "InvalidObjectState": (AccessDenied, "The object is archived: restore it first."),
    "BlobArchived": (AccessDenied, "The object is archived: restore it first."),
    "EntityTooLarge": (StorageError, "The server takes no object, or no part of one, of this size."),
    "InvalidBucketName": (Misconfigured, "Correct the bucket's name."),
    "InvalidResourceName": (Misconfigured, "Correct the container's name."),
    "PermanentRedirect": (Misconfigured, SET_REGION),
    "301": (Misconfigured, SET_REGION),
    "AuthorizationHeaderMalformed": (Misconfigured, SET_REGION),
    "IllegalLocationConstraintException": (Misconfigured, SET_REGION),
    "400": (StoreDenied, f"Usually expired credentials or another region. {{credentials}} {SET_REGION}"),
}
DENIED = (
    "These credentials may not do this (used are s3:ListBucket, GetObject, PutObject, AbortMultipartUpload, "
    "DeleteObject or their like), or there is no such object and they may not list the bucket. {credentials}"
)
# What obstore says where it got no answer that it could use.
CLIENT_SIDE: tuple[tuple[str, type[StorageError], str], ...] = (
    ("list response", BrokenAnswer, "{endpoint}"),
    ("response body error", CutShort, "{endpoint}"),
    ("without LOCATION", Misconfigured, SET_REGION),
    (
        "Content-Range|Requested",
        BrokenAnswer,
        "The server cannot continue a transfer that broke. {endpoint}",
    ),
    ("ontent-Length", StorageError, "The server did not say how long it is. Use a server that does."),
    ("nvalid path|ould not parse path", StorageError, "Rename or delete the object, or correct its name."),
    ("must be specified", Misconfigured, "{credentials}"),
    ("certificate|Certificate", TransferFailed, "If the certificate is your own, name it in AWS_CA_BUNDLE."),
    ("redential|token|metadata", StoreDenied, "{credentials}"),
    ("HTTP error|Client error", TransferFailed, "{endpoint}"),
)

SHORTEST_SECRET = 8  # characters; a test server's "a" must not be struck out of every word
# What credentials look like in a text: before the @ of a URL, slashes and all; AWS's access keys; signatures.
SECRETS = (
    re.compile(r"(?<=://)\S+(?=@)"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"),
    re.compile(r"(?<=[?&]sig=)[^&\s]+"),
)


def named(error: Exception, url: str, options: S3Options, *, of_store: bool) -> Exception:
    """The error to raise for what a client raised.

    Args:
        error: any exception.
        url: of the object or prefix that was asked for.
        options: of the store; their secrets are struck out of the text.
        of_store: whether a refusal is of the whole store: it was asked to list or to write.

    Returns:
        A `StorageError`; `error` itself where it is none of the clients', so that bugs stay visible.
    """
    if isinstance(error, StorageError):
        return error
    module = type(error).__module__.partition(".")[0]
    if module in ("botocore", "boto3") or (isinstance(error, ValueError) and "path" not in f"{error}"):
        kind, said, advice = _settings(error)
    elif module == "obstore" or isinstance(error, (FileNotFoundError, ValueError)):
        kind, said, advice = _answer(f"{error}", of_store=of_store)
    else:
        return error
    scheme = url.partition(":")[0]
    advice = advice.format(credentials=CREDENTIALS[scheme], endpoint=ENDPOINT[scheme])
    return kind(f"{url}: {_redacted(said, options).rstrip('.')}. {advice}".rstrip())


def _settings(error: Exception) -> tuple[type[StorageError], str, str]:
    """Class, words and advice for what boto3 says of its settings, before any request."""
    said = f"{error}" or type(error).__name__
    if any(word in type(error).__name__ for word in ("Credential", "Profile", "Token", "SSO", "Login")):
        return StoreDenied, said, "{credentials}"
    return Misconfigured, said, "Correct the store's address or its settings."


def _answer(text: str, *, of_store: bool) -> tuple[type[StorageError], str, str]:
    """Class, words and advice for obstore's words, which hold the server's."""
    text, _, debug = text.partition("\n\nDebug source:")
    if "non-partial" in text:
        return NotPartial, text, ""
    request = re.search(r"Error performing (?P<method>[A-Z]+) (?P<url>[^\s?]+)", text)
    asked = f"{request['method']} {request['url']}" if request else "the request"
    status = int((re.search(r"status code: (\d{3})|\(code: (\d{3})\)", text) or "0 ")[0][-4:].strip(")"))
    if not status:
        return _unanswered(text, debug, asked)
    code, message = (_element(name, text) for name in ("Code", "Message"))
    said = f"the server answered {asked} with {code or status}, {message or 'without a message'}"
    if code in ANSWERS or str(status) in ANSWERS:
        kind, advice = ANSWERS.get(code) or ANSWERS[str(status)]
        return kind, said, advice
    if status in (401, 403):
        return StoreDenied if status == 401 or of_store else AccessDenied, said, DENIED
    if status >= 500 or status in (408, 429):
        said += ", in every attempt"
        return TransferFailed, said, "The server is busy or failing: run again later."
    return StorageError, said, ""


def _unanswered(text: str, debug: str, asked: str) -> tuple[type[StorageError], str, str]:
    reason = text.rpartition(" - ")[2]
    causes = re.findall(r'message: "([^"]+)"|(Invalid\w*Certificate\w*\(\s*\w+)|kind: (\w+)', debug)
    detail = next((cause for found in reversed(causes) for cause in found if cause), "")
    about = (entry for entry in CLIENT_SIDE if re.search(entry[0], f"{reason} {detail}"))
    _, kind, advice = next(about, ("", StorageError, ""))
    if issubclass(kind, TransferFailed):
        return kind, f"{asked} failed in every attempt: {reason} ({detail})", advice
    return kind, reason, advice


def _element(name: str, text: str) -> str:
    """The text of an XML element of an error's answer, on one line."""
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _redacted(text: str, options: S3Options) -> str:
    for secret in (options.aws_secret_access_key, options.aws_session_token, options.aws_access_key_id):
        if secret and len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    for pattern in SECRETS:
        text = pattern.sub("***", text)
    return text
