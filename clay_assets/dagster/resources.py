"""Resources: the object stores and the encoder, as configuration.

Belongs here: the fields and their descriptions. Does not belong here: the work (`storage`,
`embedding.encoders`), which knows no Dagster.
https://docs.dagster.io/guides/build/external-resources
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr

from clay_assets.chips import MAX_NODATA
from clay_assets.embedding.encoders import EncoderSettings
from clay_assets.storage import S3Options, Store

SECRETS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


class ObjectStore(S3Resource):
    """A folder or a bucket's prefix; on S3 reached as dagster-aws's `S3Resource` says.

    The AWS SDK finds what is not set here: `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_REGION`,
    `AWS_ENDPOINT_URL_S3` and the rest, `~/.aws`, the machine's role. That is the better place for secrets;
    where they must be fields, give them as `dg.EnvVar`, which Dagster shows by name only.
    """

    uri: str = Field(description="A folder, or s3://, gs:// or az://bucket/prefix.")
    max_attempts: int = Field(
        default=S3Options.max_attempts, description="Per request, the first one included."
    )
    request_payer: bool = Field(
        default=False, description="Whether the requester pays for reading, as requester-pays buckets ask."
    )
    _store: Store | None = PrivateAttr(default=None)

    @classmethod
    def _is_dagster_maintained(cls) -> bool:
        return False

    def get_object_to_set_on_execution_context(self) -> Self:
        """The resource itself; `S3Resource` makes a boto3 client of each for every run, also of a folder."""
        return self

    def __repr_args__(self) -> Any:  # noqa: ANN401 - pydantic's own signature
        return [(name, value) for name, value in super().__repr_args__() if name not in SECRETS]

    def store(self) -> Store:
        """The store, the same one at every call, so that its connections are used again.

        Raises:
            Misconfigured: `uri` is neither a folder nor an s3:// address.
        """
        if self._store is None:
            options = {field.name: getattr(self, field.name) for field in fields(S3Options)}
            self._store = Store(self.uri, S3Options(**options))
        return self._store


class ClayEncoder(dg.ConfigurableResource):
    """The Clay encoder: a checkpoint and how to run it. The network is loaded when a run first needs it."""

    checkpoint: ObjectStore = Field(description="The Lightning checkpoint: a local file or an s3:// object.")
    level: str = Field(
        default="",
        description="How much of a chip one vector describes; empty: the model's default. Clay v0: mean (one"
        " vector), patch (16 x 16), group (6 x 16 x 16). Clay v1.5: cls, mean, patch (32 x 32).",
    )
    precision: str = Field(
        default="auto", description="auto (bf16 where the hardware multiplies it natively), fp32 or bf16."
    )
    device: str = Field(
        default="auto",
        description="auto (every GPU, or the CPU), cpu, cuda, cuda:0, or several: cuda:0,cuda:1; free: one"
        " that no other run of this host has taken.",
    )
    batch_size: str = Field(default="auto", description="Chips per forward pass: auto, or a number from 1.")
    cache: str | None = Field(
        default=None, description="Folder for downloaded checkpoints; empty: ~/.cache/clay-assets."
    )
    max_nodata: float = Field(
        default=MAX_NODATA,
        ge=0,
        le=1,
        description="Highest share of a chip's pixels without data; more: a skip.",
    )
    allow_untrained: bool = Field(
        default=False, description="Whether vectors of weights that were never trained may be made."
    )

    def settings(self) -> EncoderSettings:
        """The same, for the work that knows no Dagster."""
        return EncoderSettings(
            checkpoint=self.checkpoint.store(),
            level=self.level,
            precision=self.precision,
            device=self.device,
            batch_size=self.batch_size,
            cache=Path(self.cache) if self.cache else None,
            max_nodata=self.max_nodata,
            allow_untrained=self.allow_untrained,
        )
