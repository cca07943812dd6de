"""Clay v1.5 in the released size: distance to the published code's vectors, and loading time.

The weights are the recipe's, in a temporary file as large as the released one: the encoder's 1.25 GB, and
zeros for the rest. The tests do the same with the `small` network; this takes minutes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from clay_assets_tests.checkpoints import lightning_checkpoint_v15, write_checkpoint
from clay_assets_tests.golden.v15 import WINDOWS, expected
from clay_model import Precision, load_encoder

BOUND: dict[Precision, float] = {"fp32": 1e-5, "bf16": 1e-2}
"""Bounds of the relative distance of any vector to the reference's."""


def main() -> None:
    """Compare and print; exit with an error if a vector exceeds its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--folder", type=Path, help="where the checkpoint is written; default: a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = write_checkpoint(
            Path(folder) / "clay-v1.5.ckpt", lightning_checkpoint_v15("large", others=16_384)
        )
        print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB, including 1.25 GB of the encoder")
        rows = [_compare(path, arguments.device, precision) for precision in BOUND]
    print(json.dumps({"benchmark": "golden_large", "torch": torch.__version__, "rows": rows}))
    if not all(row["within_bound"] for row in rows):
        raise SystemExit("a vector's distance to the reference's exceeds its bound")


def _compare(path: Path, device: str, precision: Precision) -> dict[str, object]:
    wall, cpu = time.perf_counter(), time.process_time()
    encoder = load_encoder(path, device, precision)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    distances = []
    for window, reference in zip(WINDOWS, expected()["large"], strict=True):
        pixels = torch.from_numpy(window.pixels()[None])
        context = torch.tensor([window.latlon]), torch.tensor([window.time])
        got = encoder.encode(pixels, *context, "cls")[0].cpu().numpy()
        distances.append(float(np.linalg.norm(got - reference) / np.linalg.norm(reference)))
    print(
        f"{encoder.model_name} at {precision} on {encoder.device}: loaded in {wall:.1f} s"
        f" ({cpu:.1f} s of CPU), distances {' '.join(f'{distance:.1e}' for distance in distances)}"
    )
    return {
        "precision": precision,
        "device": str(encoder.device),
        "loading_s": wall,
        "loading_cpu_s": cpu,
        "distances": distances,
        "within_bound": max(distances) < BOUND[precision],
    }


if __name__ == "__main__":
    main()
