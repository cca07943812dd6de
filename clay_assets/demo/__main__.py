"""`python -m clay_assets.demo make | show`: the steps of the demo before and after the pipeline."""

import argparse
import sys
import time
from pathlib import Path

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import CHIPS, SCENES, write_chips
from clay_assets.demo.report import show
from clay_assets.settings import Settings
from clay_model.spec import V0, V15

MODELS = {"v0": V0, "v1.5": V15}


def main(arguments: list[str] | None = None) -> int:
    """Run one step and return the exit status.

    Args:
        arguments: Command line; None: the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m clay_assets.demo", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    make = steps.add_parser("make", help="make chips of two tiles and an untrained checkpoint, if missing")
    make.add_argument("--chips", type=Path, default=Path(Settings().chips_uri))
    make.add_argument("--model", choices=tuple(MODELS), default="v0")
    make.add_argument("--model-size", default="small")
    make.add_argument("--checkpoint", type=Path, help="checkpoints/clay-{model}-{size}-untrained.ckpt")
    summary = steps.add_parser("show", help="print a summary of the published files")
    summary.add_argument("--output", type=Path, default=Path(Settings().output_uri))
    options = parser.parse_args(arguments)
    if options.step == "make":
        _make(options)
        return 0
    try:
        print(*show(options.output), sep="\n")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _make(options: argparse.Namespace) -> None:
    for scene in SCENES:
        start = time.perf_counter()
        written = write_chips(options.chips, scene)
        what = f"made {written} in {time.perf_counter() - start:.1f} s" if written else "all there"
        print(f"{options.chips / scene.tile}: {CHIPS} chips of {scene.place}, {scene.date}: {what}")
    size = options.model_size
    checkpoint = options.checkpoint or Path("checkpoints", f"clay-{options.model}-{size}-untrained.ckpt")
    start = time.perf_counter()
    made = write_untrained_checkpoint(checkpoint, size, MODELS[options.model])
    what = f"made in {time.perf_counter() - start:.1f} s" if made else "there"
    print(f"{checkpoint}: {size}, seeded weights, UNTRAINED: {what}")


if __name__ == "__main__":
    sys.exit(main())
