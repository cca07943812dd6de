"""Energy read from a folder laid out as the kernel's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clay_assets.embedding.energy import EnergyMeter, counter_of, cpu_counter
from clay_assets_tests.stac.schemas import load


def zone(root: Path, name: str, microjoules: int, most: int = 65_532_610_987) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "energy_uj").write_text(f"{microjoules}\n")
    (root / name / "max_energy_range_uj").write_text(f"{most}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages, and two folders that would count one of them twice."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0"):
        zone(tmp_path, name, 1_000_000_000)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Processor\n")
    return tmp_path


def clock(*times: float) -> Iterator[float]:
    yield from times


def test_record_has_the_energy_of_all_packages(root: Path) -> None:
    counter = cpu_counter(root, root / "cpuinfo")
    ticks = clock(5.0, 25.0)

    with EnergyMeter(counter, lambda: next(ticks)) as meter:
        zone(root, "intel-rapl:0", 1_000_000_000 + 1_500_000_000)
        zone(root, "intel-rapl:1", 1_000_000_000 + 500_000_000)
        zone(root, "intel-rapl:0:0", 9_000_000_000)

    assert meter.record == {
        "device_type": "cpu",
        "energy_kwh": pytest.approx(2000 / 3.6e6),
        "inference_duration_s": 20.0,
        "avg_power_w": pytest.approx(100.0),
        "name": "A Processor",
    }
    assert set(meter.record) <= set(
        load("stac-embeddings-v0.0.1.json")["definitions"]["energy"]["properties"]
    )


def test_counter_may_wrap_around_once(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 9_000_000, most=10_000_000)
    ticks = clock(0.0, 1.0)

    with EnergyMeter(cpu_counter(tmp_path, tmp_path), lambda: next(ticks)) as meter:
        zone(tmp_path, "intel-rapl:0", 2_000_000, most=10_000_000)

    assert meter.record is not None
    assert meter.record["avg_power_w"] == pytest.approx(3.0)


def test_no_record_without_a_readable_counter(tmp_path: Path, root: Path) -> None:
    (root / "intel-rapl:1" / "energy_uj").unlink()

    assert cpu_counter(tmp_path / "nowhere") is None
    assert cpu_counter(root) is None
    assert counter_of("cuda:99") is None
    assert counter_of("mps") is None
    with EnergyMeter(None) as meter:
        pass
    assert meter.record is None


def test_counter_that_disappears_leaves_no_record_and_raises_nothing(root: Path) -> None:
    with EnergyMeter(cpu_counter(root)) as meter:
        (root / "intel-rapl:0" / "energy_uj").unlink()

    assert meter.record is None


def test_error_of_the_block_is_raised(root: Path) -> None:
    with pytest.raises(KeyError, match="of the block"), EnergyMeter(cpu_counter(root)):
        raise KeyError("of the block")
