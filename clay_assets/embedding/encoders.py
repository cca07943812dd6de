"""`EncoderSettings`: checkpoint, level, precision and devices of the encoder.

PyTorch, the checkpoint and the network are loaded at first use, once per process: this takes seconds, which
runs without new chips save. Not here: the network (`clay_model`), Dagster's resource (`dagster.resources`).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clay_assets.chips import MAX_NODATA
from clay_assets.embedding.checkpoint_cache import (
    CheckpointChanged,
    CheckpointFacts,
    LocalCheckpoint,
    cache_folder,
    fetch_checkpoint,
    known_facts,
)
from clay_assets.results import Fingerprint, Target
from clay_assets.settings import SettingsError
from clay_assets.storage import Store
from clay_model.spec import model_of

if TYPE_CHECKING:
    from clay_model import Embedder


FREE = "free"
"""The device setting for a device that no other process of this host has taken."""


class UntrainedWeights(ValueError):
    """The checkpoint's weights were never trained, and CLAY_ALLOW_UNTRAINED is not set."""

    systemic = True


@dataclass(frozen=True)
class EncoderSettings:
    """A checkpoint and how to run it.

    Attributes:
        checkpoint: Store; its own address is the checkpoint, a local file or an object.
        level: How much of a chip one vector describes; empty: the model's own default.
        precision: `auto` (bf16 where the hardware multiplies it natively), `fp32` or `bf16`.
        device: `auto` (every GPU, or the CPU), `cpu`, `cuda`, `cuda:0`, or several: `cuda:0,cuda:1`; `free`:
            a device that no other run of this host uses.
        batch_size: Chips per forward pass: `auto`, or a number from 1.
        cache: Folder for downloaded checkpoints; None: the user's cache folder.
        max_nodata: Highest share of a chip's pixels without data, 0 to 1; more is a skip.
        allow_untrained: Whether to accept a checkpoint whose weights were never trained.
    """

    checkpoint: Store
    level: str = ""
    precision: str = "auto"
    device: str = "auto"
    batch_size: str = "auto"
    cache: Path | None = None
    max_nodata: float = MAX_NODATA
    allow_untrained: bool = False

    def local_checkpoint(self) -> LocalCheckpoint:
        """Return the checkpoint on this machine, downloaded if necessary.

        Raises:
            StorageError: If it cannot be fetched.
        """
        return fetch_checkpoint(self.checkpoint, self.cache or cache_folder())

    def target(self) -> Target:
        """Return what the vectors depend on; downloads and hashes the checkpoint, but loads no network.

        Raises:
            StorageError: If the checkpoint cannot be fetched.
            CheckpointError: If the file is not a checkpoint of a known model.
            SettingsError: If a setting is invalid.
            UntrainedWeights: If the weights were never trained and the settings do not allow that.
        """
        from clay_model.device import resolve_devices, resolve_precision

        try:
            best = resolve_precision(self.precision, resolve_devices(_choice(self.device))[0])
        except ValueError as error:
            raise SettingsError(f"{error} (CLAY_DEVICE, CLAY_PRECISION)") from error
        self._batch()
        facts = self.local_checkpoint().facts
        if facts.untrained and not self.allow_untrained:
            raise UntrainedWeights(
                f"{facts.url} holds weights that were never trained: its vectors would be random numbers."
                " Set CLAY_CHECKPOINT to a trained checkpoint, or CLAY_ALLOW_UNTRAINED=1 to try the pipeline"
            )
        return self._target(facts, best)

    def known_target(self, work: Store) -> Target | None:
        """Return `target` without downloading the checkpoint; None if its description is not known.

        Args:
            work: Store of results, where earlier runs kept the checkpoint's description.

        Raises:
            StorageError: If a store refuses, or there is no checkpoint.
            SettingsError: If a setting is invalid.
        """
        facts = known_facts(self.checkpoint, self.cache or cache_folder(), work)
        return self._target(facts, "fp32") if facts else None

    def described_target(self) -> Target:
        """Return `known_target`, but download the checkpoint if its description is not known.

        Raises:
            StorageError: If the checkpoint cannot be fetched.
            CheckpointError: If the file is not a checkpoint of a known model.
            SettingsError: If a setting is invalid.
        """
        return self._target(self.local_checkpoint().facts, "fp32")

    def _target(self, facts: CheckpointFacts, best: str) -> Target:
        spec, _ = model_of(facts.model)
        level = self.level or spec.default_level
        if level not in spec.levels:
            raise SettingsError(
                f"CLAY_LEVEL is {level!r}, expected one of {', '.join(spec.levels)}, those of {spec.title}"
            )
        if self.precision not in ("auto", "fp32", "bf16"):
            raise SettingsError(f"CLAY_PRECISION is {self.precision!r}, expected auto, fp32 or bf16")
        made = Fingerprint(facts.model, facts.sha256, level, self.precision, spec.preprocessing_version)
        return Target.of(made, best, self.max_nodata)

    def embedders(self, planned: Fingerprint) -> Sequence["Embedder"]:
        """Return the network on each device; loads it at the first call in a process.

        Args:
            planned: Fingerprint that the run was planned for.

        Raises:
            CheckpointChanged: If the checkpoint was replaced since.
            CheckpointError: If the file is not a checkpoint of a known model.
            StorageError: If the checkpoint cannot be fetched.
        """
        checkpoint = self.local_checkpoint()
        sha256 = checkpoint.facts.sha256
        if sha256 != planned.checkpoint_sha256:
            raise CheckpointChanged(
                f"{checkpoint.facts.url} was replaced while the run started: its SHA-256 was"
                f" {planned.checkpoint_sha256} and is {sha256} now. Run again"
            )
        return _load(checkpoint.path, sha256, self.device, planned.precision)

    def chips_per_batch(self, embedders: Sequence["Embedder"]) -> int:
        """Return the number of chips per forward pass on these devices.

        Raises:
            SettingsError: If the setting is neither `auto` nor a number from 1.
        """
        from clay_model.accelerate import auto_batch_size

        return self._batch() or min(auto_batch_size(embedder) for embedder in embedders)

    def _batch(self) -> int:
        """Return `batch_size` as a number; 0 for `auto`."""
        if self.batch_size == "auto":
            return 0
        if not self.batch_size.isdecimal() or int(self.batch_size) < 1:
            raise SettingsError(
                f"CLAY_BATCH_SIZE is {self.batch_size!r}, expected auto or a whole number from 1"
            )
        return int(self.batch_size)


@functools.lru_cache(maxsize=2)
def _load(path: Path, sha256: str, device: str, precision: str) -> tuple["Embedder", ...]:  # noqa: ARG001
    """Load the network onto each device; `sha256` is an argument so that a replaced file is loaded again."""
    from clay_assets.embedding.free_device import take_free_device
    from clay_model.device import resolve_devices
    from clay_model.embed import load_encoders

    devices = resolve_devices(_choice(device))
    return tuple(load_encoders(path, [take_free_device(devices)] if device == FREE else devices, precision))


def _choice(device: str) -> str:
    """Return the setting that names the devices to choose from."""
    return "auto" if device == FREE else device
