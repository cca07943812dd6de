import platform
from pathlib import Path

import pytest
import torch

from clay_model.device import multiplies_bf16, resolve_devices, resolve_precision

CPU = torch.device("cpu")
CUDA_DEVICES = torch.cuda.device_count() if torch.cuda.is_available() else 0
ALL_CUDA = [torch.device("cuda", index) for index in range(CUDA_DEVICES)]


@pytest.mark.parametrize(
    ("name", "devices"),
    [("cpu", [CPU]), ("cpu,cpu", [CPU, CPU]), ("cpu, cpu", [CPU, CPU]), ("auto", ALL_CUDA or [CPU])],
    ids=["cpu", "two copies", "with a space", "auto"],
)
def test_setting_selects_its_devices(name: str, devices: list[torch.device]) -> None:
    assert resolve_devices(name) == devices


@pytest.mark.skipif(not CUDA_DEVICES, reason="needs a CUDA device")
def test_cuda_selects_every_cuda_device_and_a_number_selects_one() -> None:
    assert resolve_devices("cuda") == ALL_CUDA
    assert resolve_devices("cuda:0,cpu") == [torch.device("cuda", 0), CPU]


@pytest.mark.parametrize("name", ["gpu", "", "mps", "cuda:one", "cuda:-1", "cpu,", "CPU"])
def test_unknown_device_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_devices(name)


@pytest.mark.parametrize("name", [f"cuda:{CUDA_DEVICES}", f"cpu,cuda:{CUDA_DEVICES}", "cuda:99"])
def test_missing_device_is_refused_with_the_available_ones(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}', but PyTorch \S+ sees {CUDA_DEVICES} CUDA devices"):
        resolve_devices(name)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_explicit_precision_is_used(name: str) -> None:
    assert resolve_precision(name, CPU) == name


def test_auto_precision_is_bf16_if_that_is_native() -> None:
    assert resolve_precision("auto", CPU) == ("bf16" if multiplies_bf16(CPU) else "fp32")


@pytest.mark.parametrize("name", ["fp16", "float32", "BF16", ""])
def test_unknown_precision_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"precision is '{name}', expected auto, fp32 or bf16"):
        resolve_precision(name, CPU)


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="the flags are Linux's, of x86"
)
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="needs a newer PyTorch")
def test_bf16_is_native_if_the_processor_has_the_flag() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    assert multiplies_bf16(CPU) == (not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split()))
