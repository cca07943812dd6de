"""`connect`: a bucket's client of obstore.

For S3 the AWS SDK (boto3) finds credentials, endpoint, region and certificates; for Google Cloud and Azure
obstore reads the `GOOGLE_*` and `AZURE_*` variables itself. Signing, retries and multipart uploads are
obstore's: https://developmentseed.org/obstore/
"""

import functools
import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError
from botocore.loaders import create_loader
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import AzureStore, GCSStore, S3Store

from clay_assets.storage.types import S3Options

TRANSFER_TIMEOUT = timedelta(hours=6)  # of one request; obstore's own 30 s is too short for a slow line
CONNECT_TIMEOUT = timedelta(seconds=10)
# A request to a store that stays silent fails after the sum of these at the latest: 2 min 25 s.
READ_TIMEOUT = timedelta(seconds=20)  # without a single byte; S3 takes tenths of a second to begin
NO_MORE_ATTEMPTS_AFTER = timedelta(minutes=2)  # since the first attempt
MAX_BACKOFF = timedelta(seconds=5)  # between two attempts

Client = AzureStore | GCSStore | S3Store

# Parsed once per process: saves 13 MB and 70 to 380 ms per store.
_service_models = functools.cache(create_loader)


def connect(scheme: str, bucket: str, options: S3Options) -> Client:
    """Return a client for one bucket, which any number of threads may use.

    Raises:
        botocore.exceptions.BotoCoreError: If there are no S3 credentials, or the settings cannot work.
        Exception: obstore's own, likewise for Google Cloud and Azure.
    """
    if scheme == "s3":
        return _connect_s3(bucket, options)
    config: Any = {"skip_signature": True} if options.use_unsigned_session else {}
    if scheme == "az":
        return AzureStore(bucket, config=config, **_http(options, options.verify))
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):  # as in Google's own libraries
        config = {"base_url": emulator if "://" in emulator else f"http://{emulator}", "bearer_token": "-"}
    return GCSStore(bucket, config=config, **_http(options, options.verify))


def _connect_s3(bucket: str, options: S3Options) -> S3Store:
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
    endpoint = {"endpoint_url": options.endpoint_url or None, "use_ssl": options.use_ssl}
    client = session.client("s3", config=config, verify=options.verify, **endpoint)
    if urlsplit(client.meta.endpoint_url).hostname.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        region = bucket_region(client, bucket)
        client = session.client("s3", region_name=region, config=config, verify=options.verify, **endpoint)
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
    settings: Any = {
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
    profile = core.get_scoped_config().get("request_checksum_calculation", "")
    if (os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION") or profile).lower() == "when_supported":
        settings["checksum_algorithm"] = "sha256"
    verify = options.verify if options.verify is not None else core.get_config_variable("ca_bundle")
    return S3Store(bucket, config=settings, credential_provider=provider, **_http(options, verify))


def bucket_region(client: Any, bucket: str) -> str:  # noqa: ANN401 - botocore makes its clients at run time
    """Return a bucket's region, which S3 reports even without credentials; else the client's own."""
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:  # 403 without credentials, but with the header
        answer = error.response
    headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region", client.meta.region_name))


def _http(options: S3Options, verify: bool | str | None) -> dict[str, Any]:
    """Return time limits, attempts and certificates as arguments of obstore's clients.

    `verify`: False checks no certificate; text is the path of a certificate.
    """
    client: dict[str, Any] = {
        "allow_http": True,  # if the endpoint's scheme is http
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "timeout": TRANSFER_TIMEOUT,
    }
    if verify is False:
        client["allow_invalid_certificates"] = True
    elif isinstance(verify, str):
        client["root_certificate"] = Path(verify).read_bytes()
    retries = {
        "max_retries": options.max_attempts - 1,
        "retry_timeout": NO_MORE_ATTEMPTS_AFTER,
        "backoff": {"max_backoff": MAX_BACKOFF},
    }
    return {"client_options": client, "retry_config": retries}
