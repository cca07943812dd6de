"""Resolves the settings `device` and `precision` on this host."""

import torch

from clay_model.model_spec import Precision


def resolve_devices(name: str) -> list[torch.device]:
    """Return the devices that a setting means.

    Args:
        name: `auto` (every CUDA device, or the CPU if there is none), `cpu`, `cuda` (every CUDA device),
            `cuda:0`, or several separated by commas: `cuda:0,cuda:1`. A device listed twice holds two copies
            of the network.

    Returns:
        At least one device.

    Raises:
        ValueError: If the name is none of these, or names a device that this host lacks.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    if name == "cuda" and count:
        return [torch.device("cuda", index) for index in range(count)]
    devices = []
    for part in name.split(","):
        kind, _, index = part.strip().partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
            raise ValueError(
                f"device is {name!r}, expected auto, cpu, cuda or cuda:N (several: cuda:0,cuda:1)"
            )
        if kind == "cuda" and int(index or 0) >= count:
            raise ValueError(
                f"device is {name!r}, but PyTorch {torch.__version__} sees {count} CUDA devices here;"
                " use auto or cpu, or install a CUDA build of PyTorch and check nvidia-smi"
            )
        devices.append(torch.device("cpu") if kind == "cpu" else torch.device("cuda", int(index or 0)))
    return devices


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices natively (emulation is slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere introduced bf16 tensor cores
    # x86: AVX512_BF16 (Zen 4, Cooper Lake) or AMX (Sapphire Rapids); Arm: BF16 of Armv8.6.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the precision that a setting means on a device.

    Args:
        name: `auto` (bf16 where the device multiplies it natively, else fp32), `fp32` or `bf16`.
        device: The network's device.

    Raises:
        ValueError: If the name is none of the three.
    """
    if name == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    if name == "bf16":
        return "bf16"
    if name == "fp32":
        return "fp32"
    raise ValueError(f"precision is {name!r}, expected auto, fp32 or bf16")
