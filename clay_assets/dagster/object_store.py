"""The Dagster resource behind every address: a folder or an S3 bucket, as configuration.

Belongs here: the fields, their descriptions and nothing else; `clay_assets.storage` does the work and knows
no Dagster. See https://docs.dagster.io/guides/build/external-resources
"""

from dataclasses import fields

import dagster as dg
from pydantic import Field, PrivateAttr

from clay_assets.storage import S3Options, Store


class ObjectStore(dg.ConfigurableResource):
    """One folder or one `s3://bucket/prefix`, with the S3 fields of dagster-aws's `S3Resource` and one more.

    S3 fields that are left empty are found by the AWS SDK itself: `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`,
    `AWS_REGION`, `AWS_ENDPOINT_URL_S3` and the rest, `~/.aws`, the machine's role. That is the better place
    for secrets; where they must be fields, give them as `dg.EnvVar`, which Dagster shows by name only.
    """

    uri: str = Field(description="A folder, or s3://, gs:// or az://bucket/prefix.")
    use_unsigned_session: bool = Field(
        default=False, description="Send anonymous requests: for public buckets, without any credentials."
    )
    region_name: str | None = Field(default=None, description="Region of the bucket, e.g. us-west-2.")
    endpoint_url: str | None = Field(
        default=None,
        description="URL of an S3 server other than AWS, with its scheme, e.g. http://localhost:9000.",
    )
    max_attempts: int = Field(
        default=5,
        ge=1,
        description="Attempts per request and per download that breaks midway, the first included.",
    )
    profile_name: str | None = Field(default=None, description="A profile of ~/.aws/config.")
    use_ssl: bool = Field(default=True, description="Whether to use https where endpoint_url does not say.")
    verify: bool | None = Field(
        default=None,
        description="Whether to verify the server's certificate; empty: as AWS_CA_BUNDLE and the SDK say.",
    )
    aws_access_key_id: str | None = Field(
        default=None, repr=False, description="Access key, with its secret key."
    )
    aws_secret_access_key: str | None = Field(
        default=None, repr=False, description="Secret key of the access key."
    )
    aws_session_token: str | None = Field(
        default=None, repr=False, description="Session token, where the keys are temporary."
    )
    request_payer: bool = Field(
        default=False,
        description="Whether these credentials' owner pays for what is read, as some buckets ask.",
    )
    _store: Store | None = PrivateAttr(default=None)

    def store(self) -> Store:
        """The store, the same one at every call, so that its connections are used again.

        Raises:
            Misconfigured: `uri` is neither a folder nor an s3:// address.
        """
        if self._store is None:
            self._store = Store(
                self.uri, S3Options(**{field.name: getattr(self, field.name) for field in fields(S3Options)})
            )
        return self._store
