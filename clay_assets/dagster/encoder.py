"""The encoder as a Dagster resource: which checkpoint, how much of a chip, on what.

Nothing is loaded before it is used, and then once per process: PyTorch, the checkpoint and the network cost
seconds that a run without new chips need not spend.
https://docs.dagster.io/guides/build/external-resources
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from clay_assets.dagster.object_store import ObjectStore
from clay_assets.embedding.checkpoint_cache import (
    CheckpointChanged,
    LocalCheckpoint,
    cache_folder,
    fetch_checkpoint,
)
from clay_assets.results.fingerprint import Fingerprint
from clay_model.spec import LEVELS, PREPROCESSING_VERSION, Level

if TYPE_CHECKING:
    from clay_model import Embedder


class SettingError(ValueError):
    """A setting has a value that means nothing; no tile can be done."""

    systemic = True


FREE = "free"
"""As a device: one that no other process of this host has taken."""


class ClayEncoder(dg.ConfigurableResource):
    """The Clay v0 encoder: a checkpoint, and how it is run."""

    checkpoint: ObjectStore = Field(description="The Lightning checkpoint: a local file or an s3:// object.")
    level: str = Field(
        default="mean",
        description="mean: one vector a chip. patch: 16 x 16 vectors. group: 6 x 16 x 16 vectors.",
    )
    precision: str = Field(
        default="auto", description="auto (bf16 where the hardware multiplies it natively), fp32 or bf16."
    )
    device: str = Field(
        default="auto",
        description="auto (every GPU, or the CPU), cpu, cuda, cuda:0, or several: cuda:0,cuda:1. "
        "free: one that no other run of this host has taken.",
    )
    batch_size: str = Field(default="auto", description="Chips per forward pass: auto, or a number from 1.")
    cache: str | None = Field(
        default=None, description="Folder for downloaded checkpoints; empty: ~/.cache/clay-assets."
    )

    def local_checkpoint(self) -> LocalCheckpoint:
        """The checkpoint on this machine, downloaded if it has to be.

        Raises:
            StorageError: If it cannot be had.
        """
        return fetch_checkpoint(self.checkpoint.store(), Path(self.cache) if self.cache else cache_folder())

    def chosen_level(self) -> Level:
        """The level, checked.

        Raises:
            SettingError: If it is none.
        """
        if self.level not in LEVELS:
            raise SettingError(f"CLAY_LEVEL is {self.level!r}, expected one of {', '.join(LEVELS)}")
        return self.level

    def fingerprint(self) -> Fingerprint:
        """What vectors made now depend on; needs the checkpoint's hash, but loads no network.

        Raises:
            StorageError: If the checkpoint cannot be had.
            SettingError: If a setting means nothing.
        """
        from clay_model.device import resolve_devices, resolve_precision

        try:
            precision = resolve_precision(self.precision, resolve_devices(_any_of(self.device))[0])
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
            StorageError: If the checkpoint cannot be had.
        """
        checkpoint = self.local_checkpoint()
        if checkpoint.sha256 != wanted.checkpoint_sha256:
            raise CheckpointChanged(
                f"{checkpoint.source} was replaced while the run began: its SHA-256 was"
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
    from clay_assets.embedding.free_device import take_free_device
    from clay_model.device import resolve_devices
    from clay_model.embed import load_encoders

    devices = resolve_devices(_any_of(device))
    if device == FREE:
        devices = [take_free_device(devices)]
    return tuple(load_encoders(path, devices, precision))


def _any_of(device: str) -> str:
    """The setting for the devices that one is taken from."""
    return "auto" if device == FREE else device
