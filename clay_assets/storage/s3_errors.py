"""What the S3 client raises → one of this package's errors, in words a person can act on.

Belongs here: which answers are permanent and which are a broken transfer, and the advice for each. Does not
belong here: retrying (`s3_client.py`).
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

SET_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or the store's own fields; "
    "for a public bucket set use_unsigned_session."
)
SET_REGION = "Set AWS_REGION or region_name to the bucket's region."
SET_ENDPOINT = "Check AWS_ENDPOINT_URL_S3 or endpoint_url, and the network."

# Answers by S3's error code: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# A HEAD has no body, so its code is the HTTP status.
ANSWERS: dict[str, tuple[type[StorageError], str]] = {
    "NoSuchBucket": (BucketMissing, "Check the bucket's name and the endpoint, or create the bucket."),
    "NoSuchKey": (ObjectMissing, "There is no such object. If it was listed, it has been deleted since."),
    "404": (ObjectMissing, "There is no such object."),
    "PreconditionFailed": (ObjectChanged, "It changed since it was listed. List it again, and run again."),
    "412": (ObjectChanged, "It changed since it was listed. List it again, and run again."),
    "InvalidAccessKeyId": (StoreDenied, f"The server does not know this access key. {SET_CREDENTIALS}"),
    "SignatureDoesNotMatch": (
        StoreDenied,
        f"The secret key does not belong to the access key. {SET_CREDENTIALS}",
    ),
    "ExpiredToken": (StoreDenied, "The temporary credentials have expired: renew them."),
    "InvalidToken": (StoreDenied, f"The session token is not valid. {SET_CREDENTIALS}"),
    "RequestTimeTooSkewed": (StoreDenied, "This machine's clock is wrong: set it."),
    "InvalidObjectState": (StorageError, "The object is archived: restore it first."),
    "EntityTooLarge": (StorageError, "The server takes no object, or no part of one, of this size."),
    "InvalidBucketName": (Misconfigured, "Correct the bucket's name."),
    "PermanentRedirect": (Misconfigured, SET_REGION),
    "301": (Misconfigured, SET_REGION),
    "AuthorizationHeaderMalformed": (Misconfigured, SET_REGION),
    "IllegalLocationConstraintException": (Misconfigured, SET_REGION),
    "400": (StoreDenied, f"Usually expired credentials or another region. {SET_CREDENTIALS} {SET_REGION}"),
}
DENIED = (
    "These credentials may not do this (used are s3:ListBucket, GetObject, PutObject, AbortMultipartUpload, "
    f"DeleteObject), or there is no such object and they may not list the bucket. {SET_CREDENTIALS}"
)
# Operations on the bucket as a whole, and writing: whoever may not do these has nothing to go on with, or
# would make the next object for nothing, too.
OF_THE_STORE = {"ListObjectsV2", "HeadBucket", "PutObject", "CreateMultipartUpload"}
# Codes that ask for patience but come with a status below 500; the client has waited and tried again already.
BUSY = {
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
}

SHORTEST_SECRET = 8  # characters; a test server's "a" must not be struck out of every word
# What credentials look like inside a text: before the @ of a URL, slashes and all; an AWS access key.
SECRET_PATTERNS = (re.compile(r"(?<=://)\S+(?=@)"), re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"))


def broken_transfer(error: BaseException) -> bool:
    """Whether trying again can help: the connection or the body, not the server's decision."""
    import aiohttp
    from botocore import exceptions as sdk
    from botocore.parsers import ResponseParserError

    kinds = (
        sdk.ConnectionError,
        sdk.HTTPClientError,
        sdk.IncompleteReadError,
        sdk.FlexibleChecksumError,
        ResponseParserError,
        aiohttp.ClientError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, kinds)


def named(error: Exception, url: str, options: S3Options) -> Exception:
    """The error to raise for what the client raised.

    Args:
        error: any exception out of s3fs, aiobotocore or aiohttp.
        url: of the object or bucket that was asked for.
        options: of the store; their secrets are struck out of the text.

    Returns:
        A `StorageError`; `error` itself where it is none of the client's, so that bugs stay visible.
    """
    from botocore import exceptions as sdk

    if isinstance(error, StorageError):
        return error
    # s3fs replaces the client's error by one of Python's, and keeps the original as its cause.
    cause = error.__cause__ if isinstance(error.__cause__, sdk.ClientError) else error
    kind, said, advice = _answer(cause) if isinstance(cause, sdk.ClientError) else _client_side(cause)
    if kind is None:
        return error
    return kind(f"{url}: {_redacted(said, options).rstrip('.')}. {advice}".rstrip())


def _answer(error: Exception) -> tuple[type[StorageError], str, str]:
    """Class, the server's words and advice for an answer of the server."""
    response = getattr(error, "response", {})
    answer = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(answer.get("Code", status))
    operation = getattr(error, "operation_name", "request")
    said = f"the server answered {operation} with {code}, {answer.get('Message', 'without a message')}"
    if code == "404" and operation == "HeadBucket":
        code = "NoSuchBucket"
    if code in ANSWERS:
        return (ANSWERS[code][0], said, ANSWERS[code][1])
    if status in (401, 403):
        return StoreDenied if status == 401 or operation in OF_THE_STORE else AccessDenied, said, DENIED
    if status >= 500 or status == 429 or code in BUSY:
        return TransferFailed, f"{said}, in every attempt", "The server is busy or failing: run again later."
    return StorageError, said, ""


def _client_side(error: BaseException) -> tuple[type[StorageError] | None, str, str]:
    """Class, words and advice for what happened before or instead of an answer."""
    from botocore import exceptions as sdk

    credentials = (
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.CredentialRetrievalError,
        sdk.ProfileNotFound,
        sdk.NoAuthTokenError,
        sdk.TokenRetrievalError,
        sdk.SSOError,
    )
    said = f"{error}" or type(error).__name__
    if isinstance(error, credentials):
        return StoreDenied, said, SET_CREDENTIALS
    if isinstance(error, sdk.SSLError):
        return TransferFailed, said, "If the server's certificate is your own, name it in AWS_CA_BUNDLE."
    if broken_transfer(error):
        return TransferFailed, f"the transfer failed in every attempt: {said}", SET_ENDPOINT
    if isinstance(
        error, (sdk.BotoCoreError, ValueError)
    ):  # ValueError: the SDK's word for a malformed endpoint
        return Misconfigured, said, "Correct the store's address or its S3 settings."
    if isinstance(error, OSError):
        return StorageError, said, ""
    return None, "", ""


def _redacted(text: str, options: S3Options) -> str:
    for secret in (options.aws_secret_access_key, options.aws_session_token, options.aws_access_key_id):
        if secret and len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    for pattern in SECRET_PATTERNS:
        text = pattern.sub("***", text)
    return text
