"""`StoredObject`, an object in a listing, and `S3Options`, how to reach a cloud."""

from dataclasses import dataclass, field

from clay_assets.storage.errors import Misconfigured


@dataclass(frozen=True, slots=True)  # slots: a listing may hold a million of them
class StoredObject:
    """One object of a listing."""

    url: str  # s3://bucket/key, gs://bucket/key, az://container/key, or an absolute path
    size: int  # bytes
    # Changes when the content does. In a cloud the ETag without its quotes; for a local file its modification
    # time in ns and its size, both in hexadecimal.
    etag: str


@dataclass(frozen=True)
class S3Options:
    """How to reach S3: the fields of dagster-aws's `S3Resource`, and `request_payer`.

    For empty fields the AWS SDK uses its own sources: `AWS_*` variables, `~/.aws`, the instance's role.
    `use_unsigned_session`, `max_attempts` and `verify` apply to `gs://` and `az://` as well.
    """

    use_unsigned_session: bool = False  # anonymous requests, for public buckets
    region_name: str | None = None
    endpoint_url: str | None = None  # of a server other than AWS, with its scheme
    # Attempts per request, including the first; also limits how often a broken download is resumed.
    max_attempts: int = 10
    profile_name: str | None = None  # a profile of ~/.aws/config
    use_ssl: bool = True  # https if `endpoint_url` has no scheme
    verify: bool | None = None  # the server's certificate; None: as in the SDK's settings
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)  # of temporary credentials
    request_payer: bool = False  # whether the owner of these credentials pays for the transfer

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise Misconfigured(
                f"max_attempts: got {self.max_attempts}; expected at least 1, the first attempt."
            )
