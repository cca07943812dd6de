"""The encoder that the settings ask for: which checkpoint, at which level and precision, on which devices.

Nothing is loaded before it is used, and then once per process: PyTorch, the checkpoint and the network cost
seconds that a run without new chips need not spend. Not here: the network (`clay_model`), or how Dagster is
told the settings (`dagster.resources`).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clay_assets.embedding.checkpoint_cache import (
    CheckpointChanged,
    LocalCheckpoint,
    cache_folder,
    fetch_checkpoint,
)
from clay_assets.results.fingerprint import Fingerprint
from clay_assets.storage import Store
from clay_model.spec import LEVELS, PREPROCESSING_VERSION, Level

if TYPE_CHECKING:
    from clay_model import Embedder


class SettingError(ValueError):
    """A setting has an invalid value: no tile can be embedded."""

    systemic = True


@dataclass(frozen=True)
class EncoderSettings:
    """A checkpoint and how to run it.

    Attributes:
        checkpoint: Store whose own address is the checkpoint: a local file or an object.
        level: `mean`, `patch` or `group`.
        precision: `auto` (bf16 where the hardware multiplies it natively), `fp32` or `bf16`.
        device: `auto` (every GPU, or the CPU), `cpu`, `cuda`, `cuda:0`, or several: `cuda:0,cuda:1`.
        batch_size: Chips per forward pass: `auto`, or a number from 1.
        cache: Folder for downloaded checkpoints; None: the user's cache folder.
    """

    checkpoint: Store
    level: str = "mean"
    precision: str = "auto"
    device: str = "auto"
    batch_size: str = "auto"
    cache: Path | None = None

    def local_checkpoint(self) -> LocalCheckpoint:
        """The checkpoint on this machine, downloaded if necessary.

        Raises:
            StorageError: If it cannot be fetched.
        """
        return fetch_checkpoint(self.checkpoint, self.cache or cache_folder())

    def chosen_level(self) -> Level:
        """The level, checked.

        Raises:
            SettingError: If there is no such level.
        """
        if self.level not in LEVELS:
            raise SettingError(f"CLAY_LEVEL is {self.level!r}, expected one of {', '.join(LEVELS)}")
        return self.level

    def fingerprint(self) -> Fingerprint:
        """What vectors made now depend on; needs the checkpoint's hash, but loads no network.

        Raises:
            StorageError: If the checkpoint cannot be fetched.
            SettingError: If a setting is invalid.
        """
        from clay_model.device import resolve_devices, resolve_precision

        try:
            precision = resolve_precision(self.precision, resolve_devices(self.device)[0])
        except ValueError as error:
            raise SettingError(f"{error} (CLAY_DEVICE, CLAY_PRECISION)") from error
        return Fingerprint(
            checkpoint_sha256=self.local_checkpoint().sha256,
            level=self.chosen_level(),
            precision=precision,
            preprocessing=PREPROCESSING_VERSION,
        )

    def embedders(self, wanted: Fingerprint) -> Sequence["Embedder"]:
        """The network on each device; loaded at the first call in a process.

        Args:
            wanted: As `fingerprint` gave it when the run was planned.

        Raises:
            CheckpointChanged: If the checkpoint was replaced since.
            CheckpointError: If the file is no checkpoint of Clay v0.
            StorageError: If the checkpoint cannot be fetched.
        """
        checkpoint = self.local_checkpoint()
        if checkpoint.sha256 != wanted.checkpoint_sha256:
            raise CheckpointChanged(
                f"{checkpoint.source} was replaced while the run started: its SHA-256 was"
                f" {wanted.checkpoint_sha256} and is {checkpoint.sha256} now. Run again"
            )
        return _load(checkpoint.path, checkpoint.sha256, self.device, wanted.precision)

    def chips_per_batch(self, embedders: Sequence["Embedder"]) -> int:
        """Chips per forward pass on each of these.

        Raises:
            SettingError: If the setting is neither `auto` nor a number from 1.
        """
        if self.batch_size == "auto":
            from clay_model.accelerate import auto_batch_size

            return min(auto_batch_size(embedder) for embedder in embedders)
        if not self.batch_size.isdecimal() or int(self.batch_size) < 1:
            raise SettingError(
                f"CLAY_BATCH_SIZE is {self.batch_size!r}, expected auto or a whole number from 1"
            )
        return int(self.batch_size)


@functools.lru_cache(maxsize=2)
def _load(path: Path, sha256: str, device: str, precision: str) -> tuple["Embedder", ...]:  # noqa: ARG001
    """The network on each device; with `sha256`, so that another file of the same name is loaded anew."""
    from clay_model.device import resolve_devices
    from clay_model.embed import load_encoders

    return tuple(load_encoders(path, resolve_devices(device), precision))
