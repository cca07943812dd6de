"""An address and its options → obstore's client for it.

Belongs here: where credentials, endpoint, region, certificates and time limits come from. For S3 the AWS SDK
(boto3) finds them and obstore sends the requests; for Google Cloud and Azure obstore reads the `GOOGLE_*` and
`AZURE_*` variables itself. Does not belong here: the requests (`bucket.py`).
Signing, retries and multipart uploads are obstore's: https://developmentseed.org/obstore/
"""

import functools
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from clay_assets.storage.types import S3Options

if TYPE_CHECKING:  # imported when the first request is made: a store of local files needs none of it
    from obstore.store import (
        AzureConfig,
        AzureStore,
        ClientConfig,
        GCSConfig,
        GCSStore,
        RetryConfig,
        S3Config,
        S3Store,
    )

CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=20)  # without a single byte; S3 takes tenths of a second to begin
TRANSFER_TIMEOUT = timedelta(hours=6)  # of one request; obstore's own 30 s would end a checkpoint's download
NO_MORE_ATTEMPTS_AFTER = timedelta(minutes=2)
"""From the first attempt on. A dead network is reported after `max_attempts` times 10 s at the latest, one
that goes silent in the middle after two minutes and 20 s."""


def connect(scheme: str, bucket: str, options: S3Options) -> "S3Store | GCSStore | AzureStore":
    """A client for one bucket, which any number of threads may use.

    Raises:
        botocore.exceptions.BotoCoreError: If there are no S3 credentials, or the settings cannot work.
        Exception: obstore's own, likewise for Google Cloud and Azure.
    """
    from obstore.store import AzureStore, GCSStore

    if scheme == "s3":
        return _connect_s3(bucket, options)
    client, retries = _client(options.verify), _retries(options)
    if scheme == "az":
        account: AzureConfig = {"skip_signature": True} if options.use_unsigned_session else {}
        return AzureStore(bucket, config=account, client_options=client, retry_config=retries)
    settings: GCSConfig = {"skip_signature": True} if options.use_unsigned_session else {}
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):  # as Google's own libraries take it
        settings = {"base_url": emulator if "://" in emulator else f"http://{emulator}", "bearer_token": "-"}
    return GCSStore(bucket, config=settings, client_options=client, retry_config=retries)


def _connect_s3(bucket: str, options: S3Options) -> "S3Store":
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

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
        signature_version=UNSIGNED,  # it is asked for addresses alone
        connect_timeout=CONNECT_TIMEOUT.seconds,
        retries={"total_max_attempts": options.max_attempts},
    )
    where = {
        "endpoint_url": options.endpoint_url or None,
        "use_ssl": options.use_ssl,
        "verify": options.verify,
    }
    client = session.client("s3", config=config, **where)
    if urlsplit(client.meta.endpoint_url).hostname.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        client = session.client("s3", config=config, region_name=bucket_region(client, bucket), **where)
    credentials = None
    if not options.use_unsigned_session:
        if session.get_credentials() is None:
            raise NoCredentialsError
        frozen = session.get_credentials().get_frozen_credentials()  # an expired login is told by its name
        for variable, value in {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
        }.items():
            if not value:
                raise PartialCredentialsError(provider="the store", cred_var=f"aws_{variable}")
        credentials = Boto3CredentialProvider(session, ttl=timedelta(minutes=5))
    verify = options.verify if options.verify is not None else core.get_config_variable("ca_bundle")
    # Unless the user asks for it no checksum but the SHA-256 that every signature holds: many servers other
    # than AWS take no more.
    asked = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION") or core.get_scoped_config().get(
        "request_checksum_calculation", ""
    )
    address = _address(client, bucket)
    settings: S3Config = {
        "endpoint": address,
        "aws_endpoint_url_s3": address,  # the variable of this name would take precedence
        "virtual_hosted_style_request": True,  # the bucket is in the address
        "region": client.meta.region_name,
        "skip_signature": options.use_unsigned_session,
        "request_payer": options.request_payer,
        "disable_bulk_delete": True,  # not every server has it
    }
    if asked.lower() == "when_supported":
        settings["checksum_algorithm"] = "sha256"
    return S3Store(
        bucket,
        config=settings,
        client_options=_client(verify),
        retry_config=_retries(options),
        credential_provider=credentials,
    )


@functools.cache
def _service_models(search_path: str | None) -> Any:  # noqa: ANN401 - botocore has no types
    """The SDK's descriptions of services, parsed once per process: saves 13 MB and 70 to 380 ms per store."""
    from botocore.loaders import create_loader

    return create_loader(search_path)


def bucket_region(client: Any, bucket: str) -> str:  # noqa: ANN401 - botocore makes its clients at run time
    """The region that holds a bucket, which S3 tells everybody; the client's own where it is not told."""
    from botocore.exceptions import ClientError

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:  # 403 without credentials: the header is there all the same
        answer = error.response
    headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region", client.meta.region_name))


def _address(client: Any, bucket: str) -> str:  # noqa: ANN401 - as above
    """The URL of the bucket, in the style and at the endpoint that the SDK's settings ask for."""
    url = client.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket})
    return urlunsplit((*urlsplit(url)[:3], "", "")).rstrip("/")


def _client(verify: bool | str | None) -> "ClientConfig":
    client: ClientConfig = {
        "allow_http": True,  # where the endpoint says so
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "timeout": TRANSFER_TIMEOUT,
    }
    if verify is False:
        client["allow_invalid_certificates"] = True
    elif isinstance(verify, str):
        client["root_certificate"] = Path(verify).read_bytes()
    return client


def _retries(options: S3Options) -> "RetryConfig":
    return {"max_retries": options.max_attempts - 1, "retry_timeout": NO_MORE_ATTEMPTS_AFTER}
