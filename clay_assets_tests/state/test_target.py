"""The target of the settings, and the results of a tile that match it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from clay_assets.results import Fingerprint, Target
from clay_assets.state import TileStores
from clay_assets.storage import Store
from clay_assets_tests.tile_scene import FINGERPRINT, MadeUp, put_chips


def target(precision: str, *, best: str = "fp32", sha256: str = "c" * 64) -> Target:
    return Target.of(Fingerprint("clay-v0-small", sha256, "mean", precision, 1), best)


def precisions(of: Target) -> list[str]:
    return [fingerprint.precision for fingerprint in of.fingerprints]


def test_an_explicit_precision_is_strict_and_auto_takes_either() -> None:
    assert target("fp32").fingerprints == (FINGERPRINT,)
    assert (precisions(target("bf16", best="fp32")), target("bf16").preferred.precision) == (["bf16"], "bf16")
    for best in ("fp32", "bf16"):
        auto = target("auto", best=best)
        assert (set(precisions(auto)), auto.preferred.precision) == ({"bf16", "fp32"}, best)


@pytest.mark.parametrize(
    ("made", "requested", "found"),
    [
        (["fp32"], target("auto", best="bf16"), "fp32"),
        (["bf16"], target("auto", best="fp32"), "bf16"),
        (["fp32"], target("bf16"), None),
        (["fp32", "bf16"], target("fp32"), "fp32"),
        (["fp32"], target("auto", sha256="d" * 64), None),
    ],
    ids=[
        "auto keeps fp32 on better hardware",
        "auto keeps bf16 on lesser hardware",
        "bf16 is strict",
        "fp32 is strict",
        "another checkpoint",
    ],
)
def test_the_results_that_match_the_settings_are_chosen(
    tmp_path: Path, made: Sequence[str], requested: Target, found: str | None
) -> None:
    stores = TileStores(*(Store(tmp_path / name) for name in ("chips", "work", "output")))
    put_chips(stores, "27WXN", [1])
    for precision in made:
        (fingerprint,) = target(precision).fingerprints
        MadeUp(fingerprint=fingerprint).store(stores, "27WXN")

    results = requested.results(stores.work, "27WXN")

    if results is None:
        assert found is None
        return
    with results:
        assert results.header.provenance.fingerprint.precision == found
