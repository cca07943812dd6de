"""The settings of a deployment, from `CLAY_*` environment variables and their defaults.

The only place of the package that reads them, once, when the code location is wired or the command `clay`
starts. What an asset uses goes on as resource config under the variable's own name, so the Dagster UI says
where a value is from. Others are read elsewhere: AWS_* by the AWS SDK, XDG_CACHE_HOME by `checkpoint_cache`,
and what stands in `.env` comes in through Dagster or `cli`.
"""

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clay_assets.storage import StorageError, Store
from clay_model.spec import MODELS

DEFAULTS: Mapping[str, str] = {
    "CLAY_CHIPS_URI": "data/chips",
    "CLAY_CHECKPOINT": "checkpoints/clay-small-70MT-1100T-10E.ckpt",
    "CLAY_OUTPUT_URI": "data/embeddings",
    "CLAY_WORK_URI": "data/work",
    "CLAY_STAC_URI": "data/stac",
    "CLAY_TILES": "tiles.txt",
    "CLAY_LEVEL": "",
    "CLAY_PRECISION": "auto",
    "CLAY_DEVICE": "auto",
    "CLAY_BATCH_SIZE": "auto",
    "CLAY_VERSION": "1",
    "CLAY_TILES_PER_RUN": "64",
    "CLAY_OWNERS": "",
    "CLAY_MAX_NODATA": "0.3",
    "CLAY_ALLOW_UNTRAINED": "0",
    "CLAY_REQUEST_PAYER": "0",
}
"""Every variable with its default, which serves a laptop with nothing set."""

ADDRESSES = ("CLAY_CHIPS_URI", "CLAY_CHECKPOINT", "CLAY_OUTPUT_URI", "CLAY_WORK_URI", "CLAY_STAC_URI")

LEVELS = tuple(dict.fromkeys(level for spec in MODELS for level in spec.levels))
"""Of either model; whether the checkpoint's model has a level is known when a run starts."""

FORMS: Mapping[str, tuple[str, str]] = {
    "CLAY_LEVEL": ("|".join(("", *LEVELS)), f"one of {', '.join(LEVELS)}, or nothing: the model's own"),
    "CLAY_PRECISION": ("auto|fp32|bf16", "auto, fp32 or bf16"),
    "CLAY_DEVICE": (
        r"auto|free|(cpu|cuda)(:[0-9]+)?(, *(cpu|cuda)(:[0-9]+)?)*",
        "auto, free, cpu, cuda or cuda:N (several: cuda:0,cuda:1)",
    ),
    "CLAY_BATCH_SIZE": ("auto|0*[1-9][0-9]*", "auto or a whole number from 1"),
    "CLAY_VERSION": ("[0-9]{1,9}", "a whole number from 0"),
    "CLAY_TILES_PER_RUN": ("[0-9]{1,9}", "a whole number from 0"),
    "CLAY_OWNERS": (
        r" *((team:[^,]+|[^@,\s]+@[^@,\s]+) *(, *|$))*",
        "e-mail addresses or team:name, with commas between",
    ),
}
"""The form of each value that is not a switch, a share or an address, and the same in words."""

NO_SIGN_REQUEST = "AWS_NO_SIGN_REQUEST"
"""As the AWS CLI's option `--no-sign-request`: chips and checkpoint are read without credentials."""

YES, NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


class SettingsError(ValueError):
    """A setting has an invalid value: no tile can be embedded."""

    systemic = True


@dataclass(frozen=True)
class Settings:
    """What the code location needs to know before any run.

    Attributes:
        environment: The `CLAY_*` variables that are set, and `AWS_NO_SIGN_REQUEST`.
    """

    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Take the variables that are set and not empty; warn of an unknown one that begins with CLAY_."""
        ours = {name: value for name, value in environment.items() if name.startswith("CLAY_") and value}
        unknown = sorted(set(ours) - set(DEFAULTS))
        if unknown:  # perhaps misspelt, perhaps another program's
            warnings.warn(f"no settings: {', '.join(unknown)}; there are {', '.join(DEFAULTS)}", stacklevel=2)
        known = {name: value for name, value in ours.items() if name in DEFAULTS}
        if environment.get(NO_SIGN_REQUEST):
            known[NO_SIGN_REQUEST] = environment[NO_SIGN_REQUEST]
        return cls(known)

    def value(self, name: str) -> str:
        """The variable's value, or its default."""
        return self.environment.get(name, DEFAULTS[name])

    def config(self, name: str) -> str:
        """The same for resource config: by the variable's name if it is set, so that a run reads it anew."""
        from dagster import EnvVar  # half a second, which the command line need not wait for

        return EnvVar(name) if name in self.environment else DEFAULTS[name]

    def check(self) -> None:
        """Refuse what no run could use, all of it at once; reaches no network and imports no PyTorch.

        Raises:
            SettingsError: If a value is invalid.
        """
        wrong = []
        looks = [partial(self._formed, name) for name in FORMS]
        for look in looks + [partial(getattr, self, name) for name in CHECKED]:
            try:
                look()
            except SettingsError as error:
                wrong.append(str(error))
        for name in ADDRESSES:
            try:
                Store(self.value(name))
            except StorageError as error:  # does not repeat an address that may hold a secret
                wrong.append(f"{name}: {error}")
        if wrong:
            raise SettingsError("\n".join(wrong))

    @property
    def manifest(self) -> Path:
        """The file of tiles."""
        return Path(self.value("CLAY_TILES"))

    @property
    def checkpoint(self) -> str:
        """Address of the checkpoint, the same from whichever working directory it is named."""
        return self._absolute(self.value("CLAY_CHECKPOINT"))

    @property
    def version(self) -> int:
        """Version of the published files.

        Raises:
            SettingsError: If the value is no whole number from 0.
        """
        return int(self._formed("CLAY_VERSION"))

    @property
    def tiles_per_run(self) -> int:
        """Tiles in one run of a backfill; 0: one run for all.

        Raises:
            SettingsError: If the value is no whole number from 0.
        """
        return int(self._formed("CLAY_TILES_PER_RUN"))

    @property
    def stac_uri(self) -> str:
        """Where the STAC catalog goes.

        Raises:
            SettingsError: If that is below the published files: readers of a folder take every file for
                Parquet.
        """
        return self._beside_output("CLAY_STAC_URI")

    @property
    def work_uri(self) -> str:
        """Where inventories and results are kept between runs.

        Raises:
            SettingsError: If that is below the published files, as for `stac_uri`.
        """
        return self._beside_output("CLAY_WORK_URI")

    def _beside_output(self, name: str) -> str:
        place, output = self._absolute(self.value(name)), self._absolute(self.value("CLAY_OUTPUT_URI"))
        if f"{place}/".startswith(f"{output}/"):
            raise SettingsError(
                f"{name} is {place}, which is below CLAY_OUTPUT_URI ({output}): readers of that folder take"
                " every file for Parquet. Name a place beside it"
            )
        return self.value(name)

    @staticmethod
    def _absolute(address: str) -> str:
        return address.rstrip("/") if "://" in address else str(Path(address).absolute())

    @property
    def max_nodata(self) -> float:
        """Highest share of a chip's pixels without data, 0 to 1.

        Raises:
            SettingsError: If the value is no number from 0 to 1.
        """
        value = self.value("CLAY_MAX_NODATA")
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise _wrong("CLAY_MAX_NODATA", value, "a number from 0 to 1")
        return share

    @property
    def allow_untrained(self) -> bool:
        """Whether vectors of weights that were never trained may be made."""
        return self._switch("CLAY_ALLOW_UNTRAINED", self.value("CLAY_ALLOW_UNTRAINED"))

    @property
    def anonymous(self) -> bool:
        """Whether chips and checkpoint are read without credentials."""
        return self._switch(NO_SIGN_REQUEST, self.environment.get(NO_SIGN_REQUEST, ""))

    @property
    def request_payer(self) -> bool:
        """Whether the requester pays for reading chips and checkpoint."""
        return self._switch("CLAY_REQUEST_PAYER", self.value("CLAY_REQUEST_PAYER").replace("requester", "1"))

    @property
    def owners(self) -> list[str]:
        """Owners of the assets in Dagster's form: e-mail addresses, or `team:name`."""
        return [owner.strip() for owner in self.value("CLAY_OWNERS").split(",") if owner.strip()]

    @staticmethod
    def _switch(name: str, value: str) -> bool:
        if value.lower() not in YES | NO:
            raise _wrong(name, value, "1 or 0")
        return value.lower() in YES

    def _formed(self, name: str) -> str:
        value = self.value(name)
        form, words = FORMS[name]
        if not re.fullmatch(form, value):
            raise _wrong(name, value, words)
        return value


CHECKED = ("stac_uri", "work_uri", "max_nodata", "allow_untrained", "anonymous", "request_payer")
"""Properties that refuse an invalid value when they are looked at."""


def _wrong(name: str, value: str, expected: str) -> SettingsError:
    default = DEFAULTS.get(name, "")
    otherwise = f"unset it for {default!r}" if default else "unset it"
    return SettingsError(f"{name} is {value!r}, expected {expected}: correct it, or {otherwise}")
