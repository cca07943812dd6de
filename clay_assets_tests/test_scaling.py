import pytest

from benchmarks.scaling import RATES, project


def lines(**changed: float) -> dict[str, str]:
    rates = {name: rate.default for name, rate in RATES.items()} | changed
    return project(rates, tiles=1000, chips_per_tile=100, workers=10, per_run=50)


def test_hours_and_dollars_match_a_calculation_by_hand() -> None:
    found = lines(encode=100, cores=16, network=25, start_s=9, tile_s=0.18, worker_dollars=2, get_dollars=0)
    # 100,000 chips at 100/s: 1,000 s. 20 runs of 9 s and 1,000 tiles of 0.18 s: 360 s. Together 0.378 hours.
    assert found["worker hours"].startswith("0.4, 26.47 %")
    assert found["dollars"].startswith("workers 0.76, requests 0.08")
    assert found["dollars per million chips"] == "8.38"  # 0.7556, and 16.5 PUTs or LISTs a tile: 0.0825


@pytest.mark.parametrize(
    ("rates", "bound"),
    [
        ({"encode": 1.0}, "encoding"),
        ({"encode": 500, "cores": 2, "decode": 36}, "decoding"),
        ({"encode": 500, "cores": 64, "network": 10}, "the network"),
    ],
)
def test_the_slowest_part_is_named(rates: dict[str, float], bound: str) -> None:
    assert lines(**rates)["rate of a worker"].endswith(f"bound by {bound}")


def test_a_tick_waits_and_computes_concurrently() -> None:
    assert lines(tick_ms=9, latency_ms=32)["a tick of the schedule"].startswith(
        "9 s: 9 s of one core, 3 s of waiting"
    )
