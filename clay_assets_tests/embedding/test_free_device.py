import tempfile
from pathlib import Path
from typing import IO

import pytest
import torch

from clay_assets.embedding import encoders
from clay_assets.embedding.encoders import NoFreeDevice, take_free_device


def test_each_run_takes_another_device_until_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks: list[IO[bytes]] = []  # the system closes those of a process that ends
    monkeypatch.setattr(encoders, "_taken", locks)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    devices = [torch.device("cuda", index) for index in range(2)]

    taken = [str(take_free_device(devices)) for _ in devices]
    with pytest.raises(NoFreeDevice, match=r"cuda:0, cuda:1\) is taken .*dagster instance concurrency"):
        take_free_device(devices)
    locks.pop().close()
    again = take_free_device(devices)
    for lock in locks:
        lock.close()

    assert taken == ["cuda:0", "cuda:1"]
    assert str(again) == "cuda:1"
