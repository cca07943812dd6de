from dataclasses import replace
from pathlib import Path

from clay_assets.embedding.checkpoint_cache import fetch_checkpoint
from clay_assets.state import Target
from clay_assets.storage import Store
from clay_assets_tests.tile_scene import FINGERPRINT

TARGET = Target(level="mean", version=1)


def test_the_checkpoint_is_compared_once_this_machine_has_hashed_it(tmp_path: Path) -> None:
    checkpoint, cache = tmp_path / "clay.ckpt", tmp_path / "cache"
    checkpoint.write_bytes(b"other weights")

    def target() -> Target:
        return Target.from_settings(
            level="mean", precision="auto", version=1, checkpoint=Store(checkpoint), cache=cache
        )

    assert target() == TARGET
    assert target().differences(FINGERPRINT) == ""
    sha256 = fetch_checkpoint(Store(checkpoint), cache).sha256
    assert target() == replace(TARGET, checkpoint_sha256=sha256)
    assert target().differences(FINGERPRINT) == f"checkpoint cccccccccccc, wanted {sha256[:12]}"


def test_a_missing_checkpoint_is_no_error_and_not_compared(tmp_path: Path) -> None:
    target = Target.from_settings(
        level="mean", precision="fp32", version=1, checkpoint=Store(tmp_path / "none.ckpt"), cache=tmp_path
    )
    assert target == replace(TARGET, precision="fp32")


def test_all_differences_are_told() -> None:
    target = Target(level="patch", version=9, precision="bf16", checkpoint_sha256="d" * 64, preprocessing=99)
    assert target.differences(FINGERPRINT) == (
        "level mean, wanted patch, precision fp32, wanted bf16, preprocessing 1, wanted 99,"
        " checkpoint cccccccccccc, wanted dddddddddddd"
    )
