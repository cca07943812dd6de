"""`Connection`: a bucket's client of obstore, and requests whose errors name URL, cause and remedy.

Belongs here: attempts, and where credentials, endpoint, region, certificates and time limits come from. For
S3 the AWS SDK (boto3) finds them and obstore sends the requests; for Google Cloud and Azure obstore reads the
`GOOGLE_*` and `AZURE_*` variables itself. Signing, retries and multipart uploads are obstore's:
https://developmentseed.org/obstore/
"""

import functools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import boto3
import botocore.session
import obstore
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError
from botocore.loaders import create_loader
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import AzureStore, GCSStore, S3Store

from clay_assets.storage.errors import AccessDenied, ObjectMissing, StorageError
from clay_assets.storage.interruption import Waiting
from clay_assets.storage.translation import BrokenAnswer, CutShort, translate_error
from clay_assets.storage.types import S3Options

if TYPE_CHECKING:  # missing at run time
    from obstore.store import ClientConfig, RetryConfig, S3Config

T = TypeVar("T")

CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=20)  # without a single byte; S3 takes tenths of a second to begin
TRANSFER_TIMEOUT = timedelta(hours=6)  # of one request; obstore's own 30 s would end a checkpoint's download
NO_MORE_ATTEMPTS_AFTER = timedelta(minutes=2)  # since the first attempt
MAX_BACKOFF = timedelta(seconds=5)  # between two attempts
LONGEST_SILENCE = NO_MORE_ATTEMPTS_AFTER + MAX_BACKOFF + READ_TIMEOUT
"""A request to a store that stays silent fails after this time at the latest: 2 min 25 s."""


class Connection:
    """obstore's client for one bucket, created with the first request; any number of threads may use it.

    Attributes:
        waiting: Waits for this bucket's requests.
    """

    def __init__(self, scheme: str, bucket: str, options: S3Options) -> None:
        self._scheme, self._bucket, self._options = scheme, bucket, options
        self._lock = threading.Lock()
        self._client: Any = None
        self.waiting = Waiting()

    def url(self, name: str) -> str:
        """Return the URL of an object of the bucket."""
        return f"{self._scheme}://{self._bucket}/{name}".rstrip("/")

    def request(self, name: str, ask: Callable[[Any], T], *, of_store: bool = False) -> T:
        """Return what `ask` returns for the client; repeat it while the response is broken.

        obstore retries failed requests. But it returns a body that is truncated after a resumed download, or
        that has the length or the ETag of another object.

        Args:
            name: Name of the object or the prefix.
            ask: Calls obstore.
            of_store: Whether a refusal affects the whole store, as for listings and writes.

        Raises:
            StorageError: With the URL, the cause and the remedy.
        """
        remaining = self._options.max_attempts
        while True:
            try:
                return self.waiting.call(lambda: ask(self._connected()))
            except Exception as error:
                translated = translate_error(error, self.url(name), self._options, of_store=of_store)
                if translated is error and not isinstance(error, StorageError):
                    raise
            # obstore has used up its attempts to resume a truncated body: request the whole object once more.
            remaining = min(remaining - 1, 1) if isinstance(translated, CutShort) else remaining - 1
            if not remaining or not isinstance(translated, BrokenAnswer):
                break
        if isinstance(translated, ObjectMissing) and not of_store:
            with suppress(AccessDenied):  # a 404 without a body may also mean that there is no such bucket
                self.request(name, lambda client: next(obstore.list(client, name), None), of_store=True)
        raise translated from None

    def _connected(self) -> Any:  # noqa: ANN401 - any of obstore's clients
        with self._lock:
            if self._client is None:
                self._client = connect(self._scheme, self._bucket, self._options)
            return self._client


def connect(scheme: str, bucket: str, options: S3Options) -> S3Store | GCSStore | AzureStore:
    """Return a client for one bucket, which any number of threads may use.

    Raises:
        botocore.exceptions.BotoCoreError: If there are no S3 credentials, or the settings cannot work.
        Exception: obstore's own, likewise for Google Cloud and Azure.
    """
    retries: RetryConfig = {
        "max_retries": options.max_attempts - 1,
        "retry_timeout": NO_MORE_ATTEMPTS_AFTER,
        "backoff": {"max_backoff": MAX_BACKOFF},
    }
    if scheme == "s3":
        return _connect_s3(bucket, options, retries)
    kind: Any = AzureStore if scheme == "az" else GCSStore
    config: dict[str, Any] = {"skip_signature": True} if options.use_unsigned_session else {}
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")  # as in Google's own libraries
    if emulator and scheme == "gs":
        config = {"base_url": emulator if "://" in emulator else f"http://{emulator}", "bearer_token": "-"}
    client: GCSStore | AzureStore = kind(
        bucket, config=config, client_options=_client(options.verify), retry_config=retries
    )
    return client


def _connect_s3(bucket: str, options: S3Options, retries: "RetryConfig") -> S3Store:
    core = botocore.session.Session(profile=options.profile_name or None)
    core.register_component("data_loader", _service_models(core.get_config_variable("data_path")))
    session = boto3.Session(
        aws_access_key_id=options.aws_access_key_id or None,
        aws_secret_access_key=options.aws_secret_access_key or None,
        aws_session_token=options.aws_session_token or None,
        region_name=options.region_name or None,
        botocore_session=core,
    )
    config = Config(
        signature_version=UNSIGNED,  # this client only builds addresses
        connect_timeout=CONNECT_TIMEOUT.seconds,
        read_timeout=READ_TIMEOUT.seconds,
        retries={"total_max_attempts": min(options.max_attempts, 3)},
    )
    where = {
        "endpoint_url": options.endpoint_url or None,
        "use_ssl": options.use_ssl,
        "verify": options.verify,
    }
    client = session.client("s3", config=config, **where)
    if urlsplit(client.meta.endpoint_url).hostname.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        client = session.client("s3", config=config, region_name=bucket_region(client, bucket), **where)
    provider = None
    if not options.use_unsigned_session:
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = credentials.get_frozen_credentials()  # raises boto3's error if a login has expired
        for name, value in (("access_key_id", frozen.access_key), ("secret_access_key", frozen.secret_key)):
            if not value:
                raise PartialCredentialsError(provider="the store", cred_var=f"aws_{name}")
        provider = Boto3CredentialProvider(session, ttl=timedelta(minutes=5))
    # The address of the bucket, with the style and the endpoint of the SDK's settings.
    presigned = client.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})
    address = urlunsplit((*urlsplit(presigned)[:3], "", "")).rstrip("/")
    settings: S3Config = {
        "endpoint": address,
        "aws_endpoint_url_s3": address,  # the variable of this name would take precedence
        "virtual_hosted_style_request": True,  # the bucket is in the address
        "region": client.meta.region_name,
        "skip_signature": options.use_unsigned_session,
        "request_payer": options.request_payer,
        "disable_bulk_delete": True,  # not every server has it
    }
    # The SHA-256 in each signature is the only checksum unless the user requests more: many servers other
    # than AWS accept no other.
    calculation = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION") or core.get_scoped_config().get(
        "request_checksum_calculation", ""
    )
    if calculation.lower() == "when_supported":
        settings["checksum_algorithm"] = "sha256"
    verify = options.verify if options.verify is not None else core.get_config_variable("ca_bundle")
    return S3Store(
        bucket,
        config=settings,
        client_options=_client(verify),
        retry_config=retries,
        credential_provider=provider,
    )


@functools.cache
def _service_models(search_path: str | None) -> Any:  # noqa: ANN401 - botocore has no types
    """Return the SDK's service models, parsed once per process: saves 13 MB and 70 to 380 ms per store."""
    return create_loader(search_path)


def bucket_region(client: Any, bucket: str) -> str:  # noqa: ANN401 - botocore makes its clients at run time
    """Return a bucket's region, which S3 reports even without credentials; else the client's own."""
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:  # 403 without credentials, but with the header
        answer = error.response
    headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region", client.meta.region_name))


def _client(verify: bool | str | None) -> "ClientConfig":
    client: ClientConfig = {
        "allow_http": True,  # if the endpoint's scheme is http
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "timeout": TRANSFER_TIMEOUT,
    }
    if verify is False:
        client["allow_invalid_certificates"] = True
    elif isinstance(verify, str):
        client["root_certificate"] = Path(verify).read_bytes()
    return client
