"""`python -m clay_assets.demo make | watch | show`: the steps of the demo, around the pipeline."""

import argparse
import sys
import time
from pathlib import Path

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import CHIPS, SCENES, write_chips
from clay_assets.demo.report import show
from clay_assets.demo.watch import watch
from clay_assets.settings import Settings
from clay_model.spec import V0, V15

MODELS = {"v0": V0, "v1.5": V15}


def main(arguments: list[str] | None = None) -> int:
    """Run one of the steps.

    Args:
        arguments: Of the command line; those of the process if left out.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m clay_assets.demo", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    making = steps.add_parser(
        "make", help="make chips of two tiles and an untrained checkpoint, where missing"
    )
    making.add_argument("--chips", type=Path, default=Path(Settings().chips_uri))
    making.add_argument("--model", choices=tuple(MODELS), default="v0")
    making.add_argument("--model-size", default="small")
    making.add_argument("--checkpoint", type=Path, help="checkpoints/clay-{model}-{size}-untrained.ckpt")
    watching = steps.add_parser(
        "watch", help="run a command with its output in a file, and show its progress"
    )
    watching.add_argument("tile", help="that the command embeds")
    watching.add_argument("log", type=Path, help="file for the command's output")
    watching.add_argument("command", nargs=argparse.REMAINDER)
    showing = steps.add_parser("show", help="print what the published files hold")
    showing.add_argument("--output", type=Path, default=Path(Settings().output_uri))
    chosen = parser.parse_args(arguments)
    if chosen.step == "watch":
        return watch(chosen.tile, chosen.log, chosen.command)
    if chosen.step == "make":
        _make(chosen)
        return 0
    try:
        print(*show(chosen.output), sep="\n")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _make(chosen: argparse.Namespace) -> None:
    for scene in SCENES:
        start = time.perf_counter()
        written = write_chips(chosen.chips, scene)
        what = f"made {written} in {time.perf_counter() - start:.1f} s" if written else "all there"
        print(f"{chosen.chips / scene.tile}: {CHIPS} chips of {scene.place}, {scene.date}: {what}")
    size = chosen.model_size
    checkpoint = chosen.checkpoint or Path("checkpoints", f"clay-{chosen.model}-{size}-untrained.ckpt")
    start = time.perf_counter()
    made = write_untrained_checkpoint(checkpoint, size, MODELS[chosen.model])
    what = f"made in {time.perf_counter() - start:.1f} s" if made else "there"
    print(f"{checkpoint}: {size}, seeded weights, UNTRAINED: {what}")


if __name__ == "__main__":
    sys.exit(main())
