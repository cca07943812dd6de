"""How much energy a device used while a block ran, as `emb:energy` of the STAC embeddings extension says it.

Measured or left out, never estimated: a GPU's counter through NVML (package nvidia-ml-py, Volta or later), a
CPU's through RAPL, whose files only root may read unless an administrator says otherwise. Both count whatever
else ran on the device meanwhile.

https://docs.kernel.org/power/powercap/powercap.html, https://docs.nvidia.com/deploy/nvml-api/
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6
MICRO, MILLI = 1e-6, 1e-3


class Counter(Protocol):
    """A device's energy counter."""

    @property
    def name(self) -> str:
        """Of the device."""
        ...

    @property
    def device_type(self) -> str:
        """`cpu` or `gpu`."""
        ...

    def read(self) -> float:
        """Joules since some moment in the past."""
        ...

    def between(self, start: float, end: float) -> float:
        """Joules from one reading to a later one."""
        ...


@dataclass(frozen=True)
class Rapl:
    """The CPU packages of a machine, one `intel-rapl:N` folder each; AMD's have the same name.

    Attributes:
        zones: Folders with `energy_uj` and `max_energy_range_uj`.
        name: Of the processor.
    """

    zones: tuple[Path, ...]
    name: str
    device_type: str = "cpu"

    @classmethod
    def find(cls, root: Path = POWERCAP, cpuinfo: Path = Path("/proc/cpuinfo")) -> Self | None:
        """The counter, or None where there is none or it may not be read.

        Args:
            root: Folder laid out as /sys/class/powercap.
            cpuinfo: Says what the processor is called.
        """
        # `intel-rapl:0:1` are parts of package 0, and `intel-rapl-mmio:0` is package 0 again.
        zones = tuple(sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1))
        try:
            for zone in zones:
                _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
        except (OSError, ValueError):
            return None
        return cls(zones, _processor(cpuinfo)) if zones else None

    def read(self) -> float:
        """Joules of all packages; raises OSError where the files are gone."""
        return sum(_number(zone / "energy_uj") for zone in self.zones) * MICRO

    def between(self, start: float, end: float) -> float:
        """Joules from one reading to the next; over the counter's end once, after hours at full power."""
        if end >= start:
            return end - start
        return end - start + _number(self.zones[0] / "max_energy_range_uj") * MICRO


@dataclass(frozen=True)
class Nvml:
    """One GPU.

    Attributes:
        handle: NVML's.
        library: The module `pynvml`.
        name: Of the GPU.
    """

    handle: Any
    library: Any
    name: str
    device_type: str = "gpu"

    @classmethod
    def find(cls, index: int = 0) -> Self | None:
        """The counter of a GPU, or None without the library, the GPU or its counter."""
        try:
            import pynvml  # optional: package nvidia-ml-py
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            name = pynvml.nvmlDeviceGetName(handle)
        except pynvml.NVMLError:
            return None
        return cls(handle, pynvml, name if isinstance(name, str) else name.decode())

    def read(self) -> float:
        """Joules since the driver was loaded."""
        return float(self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * MILLI

    def between(self, start: float, end: float) -> float:
        """Joules from one reading to the next."""
        return end - start


def counter_of(device: str) -> Counter | None:
    """The counter of a device such as `cpu` or `cuda:1`; None where its energy can't be measured.

    A GPU's index is NVML's, which passes over CUDA_VISIBLE_DEVICES.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return Nvml.find(int(index or 0))
    return Rapl.find() if kind == "cpu" else None


class EnergyMeter:
    """Measures a block. Use as a context manager; `record` has the result afterwards.

    Attributes:
        record: `emb:energy`: device type and name, kWh, seconds, mean power in watts; None where the energy
            could not be measured.
    """

    def __init__(self, counter: Counter | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a counter, as `counter_of` finds it.

        Args:
            counter: None: nothing is measured.
            clock: Seconds.
        """
        self.record: dict[str, str | float] | None = None
        self._counter = counter
        self._clock = clock
        self._start = (0.0, 0.0)

    def __enter__(self) -> Self:
        if self._counter is not None:
            try:
                self._start = (self._counter.read(), self._clock())
            except Exception:
                self._counter = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counter is None:
            return
        joules, seconds = self._start
        try:
            used = self._counter.between(joules, self._counter.read())
        except Exception:
            return
        took = self._clock() - seconds
        if used > 0 and took > 0:
            self.record = {
                "device_type": self._counter.device_type,
                "energy_kwh": used / JOULES_PER_KWH,
                "inference_duration_s": took,
                "avg_power_w": used / took,
                "name": self._counter.name,
            }


def _number(path: Path) -> int:
    return int(path.read_text())


def _processor(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return "not said"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "not said")
