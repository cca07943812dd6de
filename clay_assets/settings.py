"""The settings of a deployment: the name, default, form and description of each environment variable.

Only this module of the package reads `CLAY_*` variables: once, when the code location is loaded or the
command `clay` starts. The fields of Dagster's resources and the table in docs/settings.md are derived from
it. Other variables are read elsewhere: AWS_* by the AWS SDK, XDG_CACHE_HOME by `embedding.checkpoint_cache`.
Dagster and `cli` load `.env` into the environment first.
"""

import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from clay_assets.storage import S3Options, StorageError, Store
from clay_model.spec import MODELS

if TYPE_CHECKING:
    from clay_assets.embedding.encoders import EncoderSettings
    from clay_assets.state.states import TileStores

LEVELS = tuple(dict.fromkeys(level for spec in MODELS for level in spec.levels))
"""Levels of all models. A run refuses a level that the checkpoint's model does not have."""

ENCODER_FIELDS = ("level", "precision", "device", "batch_size", "max_nodata", "allow_untrained")
"""Settings that `EncoderSettings` and Dagster's `ClayEncoder` share by name."""


class SettingsError(ValueError):
    """A setting has an invalid value: no tile can be embedded."""

    systemic = True


def _form(pattern: str, expected: str) -> BeforeValidator:
    """Refuse text that does not match a pattern as a whole; `expected` describes the pattern."""

    def check(value: object) -> object:
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return BeforeValidator(check)


def _share(value: object) -> float:
    with suppress(ValueError):  # not a number
        share = float(str(value))
        if 0 <= share <= 1:
            return share
    raise ValueError("expected a number from 0 to 1")


def _check_address(address: str) -> str:
    try:
        Store(address)
    except StorageError as error:  # its message does not repeat an address that may hold a secret
        raise ValueError(str(error)) from None
    return address


Address = Annotated[str, BeforeValidator(_check_address)]
Count = Annotated[int, _form("[0-9]{1,9}", "a whole number from 0")]
Switch = Annotated[bool, _form("(?i:1|true|yes|on|0|false|no|off)", "1 or 0")]
Level = Annotated[
    str, _form("|".join(("", *LEVELS)), f"one of {', '.join(LEVELS)}, or nothing: the model's own")
]
Device = Annotated[
    str,
    _form(
        r"auto|free|(cpu|cuda)(:[0-9]+)?(, *(cpu|cuda)(:[0-9]+)?)*",
        "auto, free, cpu, cuda or cuda:N (several: cuda:0,cuda:1)",
    ),
]
Owners = Annotated[
    str,
    _form(
        r" *((team:[^,]+|[^@,\s]+@[^@,\s]+) *(, *|$))*", "e-mail addresses or team:name, with commas between"
    ),
]


def _variable(field: str) -> str:
    # Like the AWS CLI's option `--no-sign-request`.
    return "AWS_NO_SIGN_REQUEST" if field == "anonymous" else f"CLAY_{field.upper()}"


class Settings(BaseModel):
    """The settings of the code location and the command line.

    A field's alias is its environment variable. The text below a field is its description, unless `Field` has
    one. Use `from_environment`, which reports all errors at once.
    """

    model_config = {"frozen": True, "alias_generator": _variable, "use_attribute_docstrings": True}

    chips_uri: Address = "data/chips"
    """folder or `s3://`, `gs://`, `az://bucket/prefix` that holds one folder per tile"""
    checkpoint: Address = "checkpoints/clay-small-70MT-1100T-10E.ckpt"
    """local path or `s3://`, `gs://`, `az://` address of the checkpoint"""
    output_uri: Address = "data/embeddings"
    """folder or bucket of the published `.gpq` files"""
    work_uri: Address = Field(default="data/work", validate_default=True)
    """inventories and per-chip results between runs; not below the published files"""
    stac_uri: Address = Field(default="data/stac", validate_default=True)
    """STAC Items and Collection; not below the published files"""
    tiles: Path = Path("tiles.txt")
    """manifest: the tiles of interest, one MGRS code per line; the partitions"""
    level: Level = Field(
        default="",
        description="how much of a chip one vector describes; empty: the model's default. Clay v0: mean"
        " (default, one vector), patch (16 x 16), group (6 x 16 x 16). Clay v1.5: cls (default), mean, patch"
        " (32 x 32)",
    )
    precision: Annotated[str, _form("auto|fp32|bf16", "auto, fp32 or bf16")] = "auto"
    """auto (bf16 where the hardware multiplies it natively), fp32 or bf16"""
    device: Device = Field(
        default="auto",
        description="auto (every GPU, or the CPU), cpu, cuda, cuda:0; several: cuda:0,cuda:1; free: one that"
        " no other run of the host uses",
    )
    batch_size: Annotated[str, _form("auto|0*[1-9][0-9]*", "auto or a whole number from 1")] = "auto"
    """windows per forward pass: auto, or a number from 1"""
    version: Count = 1
    """version of the published files, part of their names"""
    tiles_per_run: Count = 64
    """most tiles in a run of a backfill, the schedule or the sensor; 0: no limit"""
    max_nodata: Annotated[float, BeforeValidator(_share)] = 0.3
    """highest share of a chip's pixels without data, 0 to 1; chips with more are skipped"""
    allow_untrained: Switch = False
    """1: embed with weights that were never trained, to try the pipeline"""
    request_payer: Annotated[
        Switch, BeforeValidator(lambda value: "1" if value == "requester" else value)
    ] = False
    """1: pay for reading chips and checkpoint from requester-pays buckets"""
    anonymous: Switch = False
    """1: read chips and checkpoint without credentials, from public buckets"""
    owners: Owners = ""
    """owners of the assets in Dagster, e.g. `team:eo`; several with commas"""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables that are set and not empty; warn of unknown ones that begin with CLAY_.

        Reaches no network and imports no PyTorch.

        Raises:
            SettingsError: If values are invalid; it names all of them.
        """
        ours = {
            name: value for name, value in environment.items() if value and name.startswith(("CLAY_", "AWS_"))
        }
        unknown = sorted(name for name in ours if name.startswith("CLAY_") and name not in VARIABLES)
        if unknown:  # misspelt, or another program's
            expected = ", ".join(VARIABLES)
            warnings.warn(f"unknown settings: {', '.join(unknown)}; expected {expected}", stacklevel=2)
        try:
            return cls.model_validate(ours)
        except ValidationError as error:
            refused = "\n".join(_refusal(details) for details in error.errors())
        # Not in the handler: the context would be pydantic's error, which repeats values that may be secret.
        raise SettingsError(refused)

    @field_validator("work_uri", "stac_uri")
    @classmethod
    def _check_place(cls, address: str, info: ValidationInfo) -> str:
        place, output = absolute(address), info.data.get("output_uri")  # None: it was refused
        if output is not None and f"{place}/".startswith(f"{absolute(output)}/"):
            raise ValueError(
                f"{place} is below CLAY_OUTPUT_URI ({absolute(output)}): readers of that folder take every"
                " file for Parquet. Choose a location outside of it"
            )
        return address

    def config(self, name: str) -> Any:  # noqa: ANN401 - text or a number
        """Return a field as resource config; an `EnvVar` if its variable is set, so each run reads it."""
        from dagster import EnvVar  # takes half a second, which the command line can save

        value = getattr(self, name)
        return EnvVar(_variable(name)) if name in self.model_fields_set and isinstance(value, str) else value

    @property
    def read_options(self) -> S3Options:
        """How to read chips and checkpoint."""
        return S3Options(use_unsigned_session=self.anonymous, request_payer=self.request_payer)

    def stores(self) -> "TileStores":
        """Return the stores of chips, work and published files."""
        from clay_assets.state.states import TileStores  # its package imports pyarrow

        chips = Store(self.chips_uri, self.read_options)
        return TileStores(chips, Store(self.work_uri), Store(self.output_uri))

    def encoder(self) -> "EncoderSettings":
        """Return the checkpoint and how to run it."""
        from clay_assets.embedding.encoders import EncoderSettings

        fields = {name: getattr(self, name) for name in ENCODER_FIELDS}
        return EncoderSettings(Store(self.checkpoint, self.read_options), **fields)


VARIABLES = {_variable(name): field for name, field in Settings.model_fields.items()}
"""The field of each environment variable."""


def absolute(address: str) -> str:
    """Return an address that does not depend on the working directory."""
    return address.rstrip("/") if "://" in address else str(Path(address).absolute())


def default_text(field: FieldInfo) -> str:
    """Return a field's default as the value of its variable."""
    return str(int(field.default)) if isinstance(field.default, bool) else str(field.default)


def _refusal(details: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Format one error of pydantic: got, expected, remedy."""
    place, reason = str(details["loc"][0]), str(details["ctx"]["error"])
    name = place if place in VARIABLES else _variable(place)  # pydantic reports a default by its field's name
    if not reason.startswith("expected"):
        return f"{name}: {reason}"
    default = default_text(VARIABLES[name])
    remedy = f"unset it for {default!r}" if default else "unset it"
    return f"{name} is {details['input']!r}, {reason}: correct it, or {remedy}"
