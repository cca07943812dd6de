"""`EncoderSettings`: checkpoint, level, precision and devices of the encoder.

PyTorch, the checkpoint and the network are loaded at first use, once per process: this takes seconds, which
runs without new chips save.
"""

import functools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from clay_assets.chips import MAX_NODATA
from clay_assets.embedding.checkpoint_cache import (
    CheckpointChanged,
    CheckpointFacts,
    cache_folder,
    fetch_checkpoint,
    known_facts,
)
from clay_assets.results import Fingerprint, Target
from clay_assets.settings import SettingsError
from clay_assets.storage import Store
from clay_model.spec import model_of

if TYPE_CHECKING:
    import torch

    from clay_model import Embedder

_taken: list[IO[bytes]] = []  # locks of devices: open, and so locked, until this process ends


class UntrainedWeights(ValueError):
    """The checkpoint's weights were never trained, and CLAY_ALLOW_UNTRAINED is not set."""

    systemic = True


class NoFreeDevice(RuntimeError):
    """Every device of the host is taken by another process."""

    systemic = True


@dataclass(frozen=True)
class EncoderSettings:
    """A checkpoint and how to run it.

    Its methods raise a `StorageError` if the checkpoint cannot be fetched, a `CheckpointError` if the file is
    not a checkpoint of a known model, and a `SettingsError` if a setting is invalid.
    """

    checkpoint: Store  # its own address is the checkpoint, a local file or an object
    level: str = ""  # how much of a chip one vector describes; empty: the model's own default
    precision: str = "auto"  # `auto` (bf16 where the hardware multiplies it natively), `fp32` or `bf16`
    # `auto` (every GPU, or the CPU), `cpu`, `cuda`, `cuda:0`, or several: `cuda:0,cuda:1`; `free`: a device
    # that no other run of this host uses.
    device: str = "auto"
    batch_size: str = "auto"  # chips per forward pass: `auto`, or a number from 1
    cache: Path | None = None  # folder for downloaded checkpoints; None: the user's cache folder
    max_nodata: float = MAX_NODATA  # highest share of a chip's pixels without data, 0 to 1; more is a skip
    allow_untrained: bool = False  # whether to accept a checkpoint whose weights were never trained

    def local_checkpoint(self) -> tuple[Path, CheckpointFacts]:
        """Return the checkpoint's file on this machine, downloaded if necessary, and its description."""
        return fetch_checkpoint(self.checkpoint, self.cache or cache_folder())

    def target(self) -> Target:
        """Return what the vectors depend on; downloads and hashes the checkpoint, but loads no network.

        Raises:
            UntrainedWeights: If the weights were never trained and the settings do not allow that.
        """
        from clay_model.device import resolve_precision

        try:
            best = resolve_precision(self.precision, _devices(self.device)[0])
        except ValueError as error:
            raise SettingsError(f"{error} (CLAY_DEVICE, CLAY_PRECISION)") from error
        self._batch()
        _, facts = self.local_checkpoint()
        if facts.untrained and not self.allow_untrained:
            raise UntrainedWeights(
                f"{facts.url} holds weights that were never trained: its vectors would be random numbers."
                " Set CLAY_CHECKPOINT to a trained checkpoint, or CLAY_ALLOW_UNTRAINED=1 to try the pipeline"
            )
        return self._target(facts, best)

    def known_target(self, work: Store) -> Target | None:
        """Return `target` without downloading the checkpoint; None if nothing describes it yet."""
        facts = known_facts(self.checkpoint, self.cache or cache_folder(), work)
        return self._target(facts, "fp32") if facts else None

    def described_target(self) -> Target:
        """Return `known_target`, but download the checkpoint if its description is not known."""
        _, facts = self.local_checkpoint()
        return self._target(facts, "fp32")

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

        Raises:
            CheckpointChanged: If the checkpoint was replaced since the run was planned for this fingerprint.
            NoFreeDevice: If the device is `free`, and none is.
        """
        path, facts = self.local_checkpoint()
        if facts.sha256 != planned.checkpoint_sha256:
            raise CheckpointChanged(
                f"{facts.url} was replaced while the run started: its SHA-256 was"
                f" {planned.checkpoint_sha256} and is {facts.sha256} now. Run again"
            )
        return _load(path, facts.sha256, self.device, planned.precision)

    def chips_per_batch(self, embedders: Sequence["Embedder"]) -> int:
        """Return the number of chips per forward pass on these devices."""
        from clay_model.accelerate import auto_batch_size

        return self._batch() or min(auto_batch_size(embedder) for embedder in embedders)

    def _batch(self) -> int:
        """Return `batch_size` as a number; 0 for `auto`."""
        if self.batch_size == "auto":
            return 0
        if self.batch_size.isdecimal() and int(self.batch_size) >= 1:
            return int(self.batch_size)
        raise SettingsError(f"CLAY_BATCH_SIZE is {self.batch_size!r}, expected auto or a whole number from 1")


@functools.lru_cache(maxsize=2)
def _load(path: Path, sha256: str, device: str, precision: str) -> tuple["Embedder", ...]:  # noqa: ARG001
    """Load the network onto each device; `sha256` is an argument so that a replaced file is loaded again."""
    from clay_model.embed import load_encoders

    devices = _devices(device)
    return tuple(load_encoders(path, [take_free_device(devices)] if device == "free" else devices, precision))


def _devices(setting: str) -> list["torch.device"]:
    """Return the devices to use; for `free`, those to choose from."""
    from clay_model.device import resolve_devices

    return resolve_devices("auto" if setting == "free" else setting)


def take_free_device(devices: Sequence["torch.device"]) -> "torch.device":
    """Reserve a device that no other process of this user and host gets before this process ends.

    The GIL limits how many chips a second one process feeds (docs/performance.md), so a host with several
    GPUs is best used with one run per GPU: `CLAY_DEVICE=free`, and as many slots of the pool `gpu` as GPUs.

    Raises:
        NoFreeDevice: If every device is taken.
    """
    import fcntl  # only Unix has it

    folder = Path(tempfile.gettempdir()) / f"clay-assets-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for device in devices:
        lock = (folder / f"{device}.lock".replace(":", "-")).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _taken.append(lock)
        return device
    names = ", ".join(str(device) for device in devices)
    raise NoFreeDevice(
        f"every device ({names}) is taken by another run, expected a free one: give the pool `gpu` as many"
        " slots as there are devices on a host (dagster instance concurrency set gpu N)"
    )
