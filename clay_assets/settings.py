"""The settings of a deployment, from `CLAY_*` environment variables and their defaults.

The only place of the package that reads them, once, when the code location is wired or the command `clay`
starts. What an asset uses goes on as resource config under the variable's own name, so the Dagster UI says
where a value is from. Others are read elsewhere: AWS_* by the AWS SDK, XDG_CACHE_HOME by `checkpoint_cache`,
and what stands in `.env` comes in through Dagster or `cli`.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULTS: Mapping[str, str] = {
    "CLAY_CHIPS_URI": "data/chips",
    "CLAY_CHECKPOINT": "checkpoints/clay-small-70MT-1100T-10E.ckpt",
    "CLAY_OUTPUT_URI": "data/embeddings",
    "CLAY_WORK_URI": "data/work",
    "CLAY_TILES": "tiles.txt",
    "CLAY_LEVEL": "mean",
    "CLAY_PRECISION": "auto",
    "CLAY_DEVICE": "auto",
    "CLAY_BATCH_SIZE": "auto",
    "CLAY_VERSION": "1",
    "CLAY_TILES_PER_RUN": "64",
    "CLAY_OWNERS": "",
}
"""Every variable with its default, which serves a laptop with nothing set."""


class SettingsError(ValueError):
    """An environment variable has a value that means nothing."""


@dataclass(frozen=True)
class Settings:
    """What the code location needs to know before any run.

    Attributes:
        environment: The `CLAY_*` variables that are set.
    """

    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Take the variables that are set and not empty; warn of an unknown one that begins with CLAY_."""
        ours = {name: value for name, value in environment.items() if name.startswith("CLAY_") and value}
        unknown = sorted(set(ours) - set(DEFAULTS))
        if unknown:  # perhaps misspelt, perhaps another program's
            warnings.warn(f"no settings: {', '.join(unknown)}; there are {', '.join(DEFAULTS)}", stacklevel=2)
        return cls({name: value for name, value in ours.items() if name in DEFAULTS})

    def value(self, name: str) -> str:
        """The variable's value, or its default."""
        return self.environment.get(name, DEFAULTS[name])

    def config(self, name: str) -> str:
        """The same for resource config: by the variable's name if it is set, so that a run reads it anew."""
        from dagster import EnvVar  # half a second, which the command line need not wait for

        return EnvVar(name) if name in self.environment else DEFAULTS[name]

    @property
    def manifest(self) -> Path:
        """The file of tiles."""
        return Path(self.value("CLAY_TILES"))

    @property
    def checkpoint(self) -> str:
        """Address of the checkpoint, the same from whichever working directory it is named."""
        value = self.value("CLAY_CHECKPOINT")
        return value if "://" in value else str(Path(value).absolute())

    @property
    def version(self) -> int:
        """Version of the published files.

        Raises:
            SettingsError: If the value is no whole number from 0.
        """
        return self._whole_number("CLAY_VERSION")

    @property
    def tiles_per_run(self) -> int:
        """Tiles in one run of a backfill; 0: one run for all.

        Raises:
            SettingsError: If the value is no whole number from 0.
        """
        return self._whole_number("CLAY_TILES_PER_RUN")

    @property
    def owners(self) -> list[str]:
        """Owners of the assets in Dagster's form: e-mail addresses, or `team:name`."""
        return [owner.strip() for owner in self.value("CLAY_OWNERS").split(",") if owner.strip()]

    def _whole_number(self, name: str) -> int:
        value = self.value(name)
        if not value.isdecimal():
            raise SettingsError(f"{name} is {value!r}, expected a whole number from 0")
        return int(value)
