"""Checkpoints and encoders that many tests read: each is made once per session, on first use."""

from pathlib import Path

import pytest

from clay_assets_tests.checkpoints import (
    lightning_checkpoint,
    lightning_checkpoint_v15,
    write_checkpoint,
)
from clay_model import Embedder, load_encoder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tiny` checkpoint of the recipe, 30 MB, in the file format of Lightning."""
    path = tmp_path_factory.mktemp("checkpoints") / "clay-tiny.ckpt"
    return write_checkpoint(path, lightning_checkpoint("tiny"))


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `small` checkpoint of the recipe, 360 MB, in the file format of Lightning."""
    path = tmp_path_factory.mktemp("checkpoints") / "clay-small-70MT-1100T-10E.ckpt"
    return write_checkpoint(path, lightning_checkpoint("small"))


@pytest.fixture(scope="session")
def v15_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `small` checkpoint of Clay v1.5 with the recipe's weights, 43 MB, in the file format of Lightning."""
    path = tmp_path_factory.mktemp("checkpoints") / "clay-v1.5-small.ckpt"
    return write_checkpoint(path, lightning_checkpoint_v15("small"))


@pytest.fixture(scope="session")
def v15_encoder(v15_checkpoint: Path) -> Embedder:
    """The `small` recipe model of Clay v1.5 on the CPU in float32."""
    return load_encoder(v15_checkpoint, device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def tiny_encoder(tiny_checkpoint: Path) -> Embedder:
    """The `tiny` recipe model on the CPU in float32."""
    return load_encoder(tiny_checkpoint, device="cpu", precision="fp32")
