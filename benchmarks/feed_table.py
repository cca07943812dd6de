"""Projects the chips/s that machines could feed and GPUs encode, from the measurements of `benchmarks.feed`.

Nothing was measured on the machines named here.
"""

FLOP_PER_CHIP = 353e9
"""FLOP per chip of v0 `small`."""

GPUS = {"A10G": 125e12, "L4": 121e12, "H100": 989e12}
"""bf16 FLOP/s without sparsity, from NVIDIA's data sheets (A10, L4, H100 SXM)."""

SHARE = 0.55
"""Assumed fraction of that rate that the encoder reaches."""

CORES = (8, 16, 32, 96)
GBITS = (10, 25, 100)


def print_table(cpu_s: float, gil_s: float, mb: float) -> None:
    """Print what bounds each machine, as Markdown.

    No single thread bounds it: decoders and the workers of obstore's runtime are as many as the cores.

    Args:
        cpu_s: CPU seconds a chip.
        gil_s: Seconds a chip with the GIL held.
        mb: Size of a chip's file.
    """
    print(f"\nOne process: at most {1 / gil_s:.0f} chips/s (the GIL).\n")
    print("| cores | " + " | ".join(f"{gbit} Gbit/s" for gbit in GBITS) + " |")
    print("|---" * (1 + len(GBITS)) + "|")
    for cores in CORES:
        cells = []
        for gbit in GBITS:
            bounds = {"cores": cores / cpu_s, "network": gbit * 1e3 / 8 / mb, "the GIL": 1 / gil_s}
            what = min(bounds, key=lambda name: bounds[name])
            cells.append(f"{bounds[what]:.0f} ({what})")
        print(f"| {cores} | " + " | ".join(cells) + " |")
    rates = {name: SHARE * rate / FLOP_PER_CHIP for name, rate in GPUS.items()}
    print(f"\nEncoders at {SHARE:.0%}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
