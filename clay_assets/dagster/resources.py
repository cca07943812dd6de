"""Resources: the object stores (`storage`) and the encoder (`embedding`) as Dagster's configuration.

https://docs.dagster.io/guides/build/external-resources
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr

from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.settings import ENCODER_FIELDS, Settings
from clay_assets.storage import S3Options, Store


class ObjectStore(S3Resource):
    """A folder, or a prefix of a bucket with the connection fields of dagster-aws's `S3Resource`.

    For fields that are not set, the AWS SDK's own sources apply: `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`,
    `AWS_REGION`, `AWS_ENDPOINT_URL_S3` and so on, `~/.aws`, the machine's role. Prefer these for secrets; if
    a secret must be a field, use `dg.EnvVar`: Dagster shows only its name.
    """

    uri: str = Field(description="A folder, or s3://, gs:// or az://bucket/prefix.")
    max_attempts: int = Field(
        default=S3Options.max_attempts, description="Attempts per request, including the first."
    )
    request_payer: bool = Field(
        default=False, description="Whether to pay for reading from requester-pays buckets."
    )
    _store: Store | None = PrivateAttr(default=None)

    @classmethod
    def _is_dagster_maintained(cls) -> bool:
        return False

    def get_object_to_set_on_execution_context(self) -> Self:
        """Return the resource itself; `S3Resource` would create a boto3 client, even for a folder."""
        return self

    def __repr_args__(self) -> Any:  # noqa: ANN401 - pydantic's own signature
        secrets = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return [(name, value) for name, value in super().__repr_args__() if name not in secrets]

    def store(self) -> Store:
        """Return the store: the same one on every call, so that its connections are reused."""
        if self._store is None:
            options = {field.name: getattr(self, field.name) for field in fields(S3Options)}
            self._store = Store(self.uri, S3Options(**options))
        return self._store


def _setting(name: str, **limits: Any) -> Any:  # noqa: ANN401 - as pydantic's Field
    """Return a field with the default and description of a setting."""
    field = Settings.model_fields[name]
    return Field(default=field.default, description=field.description, **limits)


class ClayEncoder(dg.ConfigurableResource):
    """The Clay encoder: a checkpoint and how to run it. A run loads the network when it first needs it."""

    checkpoint: ObjectStore = Field(description="The Lightning checkpoint: a local file or an s3:// object.")
    level: str = _setting("level")
    precision: str = _setting("precision")
    device: str = _setting("device")
    batch_size: str = _setting("batch_size")
    cache: str | None = Field(
        default=None, description="Folder for downloaded checkpoints; empty: ~/.cache/clay-assets."
    )
    max_nodata: float = _setting("max_nodata", ge=0, le=1)
    allow_untrained: bool = _setting("allow_untrained")

    def settings(self) -> EncoderSettings:
        """Return the same settings for `embedding`, which does not depend on Dagster."""
        return EncoderSettings(
            checkpoint=self.checkpoint.store(),
            cache=Path(self.cache) if self.cache else None,
            **{name: getattr(self, name) for name in ENCODER_FIELDS},
        )
