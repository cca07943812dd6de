"""A device for each process: processes of one host take different ones, and give them back by ending."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch

from clay_assets.embedding import free_device
from clay_assets.embedding.free_device import NoFreeDevice, take_free_device

TAKE = """
import sys, torch
from pathlib import Path
from clay_assets.embedding.free_device import take_free_device
devices = [torch.device("cuda", index) for index in range(2)]
print(take_free_device(devices, Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def taken_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives back what this process took, which otherwise ends only with the process."""
    locks: list[IO[bytes]] = []
    monkeypatch.setattr(free_device, "_taken", locks)
    yield
    for lock in locks:
        lock.close()


@pytest.mark.usefixtures("taken_here")
def test_each_process_takes_another_device_and_one_more_finds_none_until_one_has_ended(
    tmp_path: Path,
) -> None:
    devices = [torch.device("cuda", index) for index in range(2)]
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:  # type: ignore[call-overload]
        try:
            taken = {first.stdout.readline().strip(): first, second.stdout.readline().strip(): second}

            assert set(taken) == {"cuda:0", "cuda:1"}
            with pytest.raises(
                NoFreeDevice, match=r"cuda:0, cuda:1\) is taken .*dagster instance concurrency"
            ):
                take_free_device(devices, tmp_path)
            taken["cuda:1"].kill()
            taken["cuda:1"].wait()
            assert take_free_device(devices, tmp_path) == torch.device("cuda:1")
        finally:
            first.kill()
            second.kill()
