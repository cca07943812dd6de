"""Reserves a device that no other process of the host uses.

The GIL limits how many chips a second one process feeds (docs/performance.md), so a host with several GPUs is
best used with one run per GPU: `CLAY_DEVICE=free`, and as many slots of the pool `gpu` as there are GPUs.
Does not belong here: which devices exist (`clay_model.device`).
"""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch

_taken: list[IO[bytes]] = []  # open, and so locked, until this process ends


class NoFreeDevice(RuntimeError):
    """Every device of the host is taken by another process."""

    systemic = True


def take_free_device(devices: Sequence[torch.device], folder: Path | None = None) -> torch.device:
    """Reserve a device; no other process of this user gets it before this process ends.

    Args:
        devices: Devices to choose from.
        folder: Folder of lock files; default: the user's own in the host's temporary folder.

    Raises:
        NoFreeDevice: If all are taken.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"clay-assets-devices-{os.getuid()}"
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
