"""Energy read from a folder laid out as the kernel's."""

from pathlib import Path

import pytest

from clay_assets.embedding import energy
from clay_assets.embedding.energy import EnergyMeter, counter_of
from clay_assets_tests.stac.schemas import load


def zone(root: Path, name: str, microjoules: int, most: int = 65_532_610_987) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "energy_uj").write_text(f"{microjoules}\n")
    (root / name / "max_energy_range_uj").write_text(f"{most}\n")


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder and the processor's name in place of the kernel's."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Processor\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "CPUINFO", tmp_path / "cpuinfo")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages, and two folders that would count one of them twice."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl-mmio:0"):
        zone(tmp_path, name, 1_000_000_000)
    return tmp_path


def test_record_has_the_energy_of_all_packages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5.0
    monkeypatch.setattr("clay_assets.embedding.energy.time.monotonic", lambda: now)

    with EnergyMeter(counter_of("cpu")) as meter:
        zone(root, "intel-rapl:0", 1_000_000_000 + 1_500_000_000)
        zone(root, "intel-rapl:1", 1_000_000_000 + 500_000_000)
        zone(root, "intel-rapl:0:0", 9_000_000_000)
        now = 25.0

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


def test_counter_may_wrap_around_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", 9_000_000, most=10_000_000)
    now = 0.0
    monkeypatch.setattr("clay_assets.embedding.energy.time.monotonic", lambda: now)

    with EnergyMeter(counter_of("cpu")) as meter:
        zone(tmp_path, "intel-rapl:0", 2_000_000, most=10_000_000)
        now = 1.0

    assert meter.record is not None
    assert meter.record["avg_power_w"] == pytest.approx(3.0)


def test_no_record_without_a_readable_counter(tmp_path: Path) -> None:
    assert counter_of("cpu") is None  # no package
    zone(tmp_path, "intel-rapl:0", 1_000_000_000)
    zone(tmp_path, "intel-rapl:1", 1_000_000_000)
    assert counter_of("cpu") is not None
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()

    assert counter_of("cpu") is None
    assert counter_of("cuda:99") is None
    assert counter_of("mps") is None
    with EnergyMeter(None) as meter:
        pass
    assert meter.record is None


def test_counter_that_disappears_leaves_no_record_and_raises_nothing(root: Path) -> None:
    with EnergyMeter(counter_of("cpu")) as meter:
        (root / "intel-rapl:0" / "energy_uj").unlink()

    assert meter.record is None


@pytest.mark.usefixtures("root")
def test_error_of_the_block_is_raised() -> None:
    with pytest.raises(KeyError, match="of the block"), EnergyMeter(counter_of("cpu")):
        raise KeyError("of the block")
