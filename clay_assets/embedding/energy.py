"""Measures the energy that a device uses, for `emb:energy` of the STAC embeddings extension.

Energy is measured or omitted, never estimated: for a GPU by NVML (package nvidia-ml-py, Volta or later), for
a CPU by RAPL, whose files only root may read by default. Both include everything else that ran on the device.

https://docs.kernel.org/power/powercap/powercap.html, https://docs.nvidia.com/deploy/nvml-api/
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

POWERCAP, CPUINFO = Path("/sys/class/powercap"), Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Counter:
    """A device's energy counter."""

    device_type: str  # `cpu` or `gpu`
    name: str  # of the device
    joules: Callable[[], float]  # since some moment in the past
    span: float = math.inf  # joules after which the counter wraps around


def counter_of(device: str) -> Counter | None:
    """Return the counter of a device such as `cpu` or `cuda:1`; None if its energy cannot be measured.

    A GPU's index is NVML's, which ignores CUDA_VISIBLE_DEVICES.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda"):
        return None
    try:
        counter = _cpu_counter() if kind == "cpu" else _gpu_counter(int(index or 0))
        counter.joules()  # it may exist and not be readable
    except Exception:  # no energy record rather than no embeddings
        return None
    return counter


def _cpu_counter() -> Counter:
    """Return the counter of all CPU packages together; AMD's are named like Intel's."""
    # `intel-rapl:0:1` are parts of package 0, and `intel-rapl-mmio:0` is package 0 again.
    zones = sorted(zone for zone in POWERCAP.glob("intel-rapl:*") if zone.name.count(":") == 1)

    def joules() -> float:
        return 1e-6 * sum(int((zone / "energy_uj").read_text()) for zone in zones)

    span = 1e-6 * int((zones[0] / "max_energy_range_uj").read_text())
    name = re.search(r"^model name\s*: (.*)", CPUINFO.read_text(), re.MULTILINE)
    return Counter("cpu", name[1] if name else "unknown", joules, span)


def _gpu_counter(index: int) -> Counter:
    import pynvml  # optional: package nvidia-ml-py

    def joules() -> float:
        return 1e-3 * float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = pynvml.nvmlDeviceGetName(handle)
    return Counter("gpu", name if isinstance(name, str) else name.decode(), joules)


class EnergyMeter:
    """Measures a block; `record` is `emb:energy` afterwards, or None if the energy could not be measured."""

    def __init__(self, counter: Counter | None) -> None:
        self.record: dict[str, str | float] | None = None
        self._counter = counter

    def __enter__(self) -> Self:
        self._before, self._began = self._joules(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        used, seconds = self._joules() - self._before, time.monotonic() - self._began
        if self._counter is None:
            return
        if used < 0:  # the counter wrapped around, once: that takes hours at full power
            used += self._counter.span
        if 0 < used < math.inf and seconds > 0:
            self.record = {
                "device_type": self._counter.device_type,
                "energy_kwh": used / 3.6e6,
                "inference_duration_s": seconds,
                "avg_power_w": used / seconds,
                "name": self._counter.name,
            }

    def _joules(self) -> float:
        """Read the counter; NaN, with which nothing is recorded, if that is impossible."""
        try:
            return self._counter.joules() if self._counter is not None else math.nan
        except Exception:  # no energy record rather than no embeddings
            return math.nan
