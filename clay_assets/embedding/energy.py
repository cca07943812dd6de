"""Measures the energy that a device uses, for `emb:energy` of the STAC embeddings extension.

Energy is measured or omitted, never estimated: for a GPU by NVML (package nvidia-ml-py, Volta or later), for
a CPU by RAPL, whose files only root may read by default. Both include everything else that ran on the device.

https://docs.kernel.org/power/powercap/powercap.html, https://docs.nvidia.com/deploy/nvml-api/
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

POWERCAP, CPUINFO = Path("/sys/class/powercap"), Path("/proc/cpuinfo")
JOULES_PER_KWH = 3.6e6
MICRO, MILLI = 1e-6, 1e-3


@dataclass(frozen=True)
class Counter:
    """A device's energy counter.

    Attributes:
        device_type: `cpu` or `gpu`.
        name: Name of the device.
        read: Returns the joules since some moment in the past.
        span: Joules after which the counter wraps around.
    """

    device_type: str
    name: str
    read: Callable[[], float]
    span: float = math.inf


def counter_of(device: str) -> Counter | None:
    """Return the counter of a device such as `cpu` or `cuda:1`; None if its energy cannot be measured.

    A GPU's index is NVML's, which ignores CUDA_VISIBLE_DEVICES.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return gpu_counter(int(index or 0))
    return cpu_counter() if kind == "cpu" else None


def cpu_counter(root: Path = POWERCAP, cpuinfo: Path = CPUINFO) -> Counter | None:
    """Return the counter of all CPU packages; None if there is none or it may not be read.

    Args:
        root: Folder laid out as /sys/class/powercap: one `intel-rapl:N` folder a package, also AMD's.
        cpuinfo: Names the processor.
    """
    # `intel-rapl:0:1` are parts of package 0, and `intel-rapl-mmio:0` is package 0 again.
    zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)

    def joules(name: str) -> list[float]:
        return [MICRO * int((zone / name).read_text()) for zone in zones]

    try:
        joules("energy_uj")
        span = joules("max_energy_range_uj")[0]
    except (OSError, ValueError, IndexError):
        return None
    return Counter("cpu", _processor(cpuinfo), lambda: sum(joules("energy_uj")), span)


def gpu_counter(index: int) -> Counter | None:
    """Return the counter of a GPU; None without the library, the GPU or its counter."""
    try:
        import pynvml  # optional: package nvidia-ml-py
    except ImportError:
        return None

    def joules() -> float:
        return MILLI * float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        joules()
        name = pynvml.nvmlDeviceGetName(handle)
    except pynvml.NVMLError:
        return None
    return Counter("gpu", name if isinstance(name, str) else name.decode(), joules)


class EnergyMeter:
    """Measures a block. Use as a context manager; `record` has the result afterwards.

    Attributes:
        record: `emb:energy`: device type and name, kWh, seconds, mean power in watts; None if the energy
            could not be measured.
    """

    def __init__(self, counter: Counter | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare to measure.

        Args:
            counter: From `counter_of`; None: nothing is measured.
            clock: Returns seconds.
        """
        self.record: dict[str, str | float] | None = None
        self._counter = counter
        self._clock = clock
        self._start = (0.0, 0.0)

    def __enter__(self) -> Self:
        if self._counter is not None:
            try:
                self._start = (self._counter.read(), self._clock())
            except Exception:  # no energy record rather than no embeddings
                self._counter = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._counter is None:
            return
        try:
            used = self._counter.read() - self._start[0]
        except Exception:
            return
        if used < 0:  # the counter wrapped around, once: that takes hours at full power
            used += self._counter.span
        seconds = self._clock() - self._start[1]
        if 0 < used < math.inf and seconds > 0:
            self.record = {
                "device_type": self._counter.device_type,
                "energy_kwh": used / JOULES_PER_KWH,
                "inference_duration_s": seconds,
                "avg_power_w": used / seconds,
                "name": self._counter.name,
            }


def _processor(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")
