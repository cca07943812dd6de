"""What machines could feed and GPUs would encode, from the constants that `benchmarks.feed` measures.

Belongs here: the projection and what it assumes. It is arithmetic: nothing in it was measured on the machines
it names.
"""

FLOP_PER_CHIP = 353e9
"""Of v0 `small`; see docs/performance.md."""

GPUS = {"A10G": 125e12, "L4": 121e12, "H100": 989e12}
"""bf16 products a second without sparsity, of NVIDIA's data sheets (A10, L4, H100 SXM)."""

SHARE = 0.55
"""Of that rate, which the encoder is assumed to reach."""

CORES = (8, 16, 32, 96)
GBITS = (10, 25, 100)


def print_table(cpu_s: float, gil_s: float, mb: float, thread_s_per_gb: float) -> None:
    """Print what binds on each machine, as Markdown.

    Args:
        cpu_s: CPU seconds a chip.
        gil_s: Seconds a chip with the GIL held.
        mb: Of a chip's file.
        thread_s_per_gb: CPU seconds of the busiest thread.
    """
    process = {"the GIL": 1 / gil_s, "one thread": 1e3 / mb / thread_s_per_gb}
    binding, most = min(process.items(), key=lambda entry: entry[1])
    print(f"\nOne process: at most {most:.0f} chips/s ({binding}).\n")
    print("| cores | " + " | ".join(f"{gbit} Gbit/s" for gbit in GBITS) + " |")
    print("|---" * (1 + len(GBITS)) + "|")
    for cores in CORES:
        cells = []
        for gbit in GBITS:
            bounds = {"cores": cores / cpu_s, "network": gbit * 1e3 / 8 / mb, binding: most}
            what = min(bounds, key=lambda name: bounds[name])
            cells.append(f"{bounds[what]:.0f} ({what})")
        print(f"| {cores} | " + " | ".join(cells) + " |")
    rates = {name: SHARE * rate / FLOP_PER_CHIP for name, rate in GPUS.items()}
    print(f"\nEncoders at {SHARE:.0%}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
