"""`python -m clay_assets.demo make | show`: the demo's steps before and after the pipeline."""

import argparse
import sys
import time
from pathlib import Path

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import write_chips_of_tile
from clay_assets.demo.report import show
from clay_assets.demo.scenes import SCENES
from clay_assets.settings import DEFAULTS
from clay_model.spec import SIZES


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two steps.

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
    making.add_argument("--chips", type=Path, default=Path(DEFAULTS["CLAY_CHIPS_URI"]))
    making.add_argument("--checkpoint", type=Path, default=Path(DEFAULTS["CLAY_CHECKPOINT"]))
    making.add_argument("--chips-per-date", type=int, default=6, help="neighbours, on each of two dates (6)")
    making.add_argument("--model-size", choices=tuple(SIZES), default="small")
    showing = steps.add_parser("show", help="print what the published files hold")
    showing.add_argument("--output", type=Path, default=Path(DEFAULTS["CLAY_OUTPUT_URI"]))
    chosen = parser.parse_args(arguments)
    try:
        if chosen.step == "make":
            _make(chosen)
        else:
            print(*show(chosen.output), sep="\n")
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _make(chosen: argparse.Namespace) -> None:
    for scene in SCENES:
        start = time.perf_counter()
        count = chosen.chips_per_date * len(scene.seasons)
        written = write_chips_of_tile(chosen.chips, scene.tile, count)
        dates = " and ".join(season.date.isoformat() for season in scene.seasons)
        what = f"made {written} in {time.perf_counter() - start:.1f} s" if written else "all there"
        print(f"{chosen.chips / scene.tile}: {count} chips of invented land, {dates}: {what}")
    start = time.perf_counter()
    try:
        made = write_untrained_checkpoint(chosen.checkpoint, chosen.model_size)
    except FileExistsError:
        print(f"{chosen.checkpoint}: not the demo's own, kept and used as it is")
        return
    what = f"made in {time.perf_counter() - start:.1f} s" if made else "there"
    print(f"{chosen.checkpoint}: {chosen.model_size}, seeded weights, UNTRAINED: {what}")


if __name__ == "__main__":
    sys.exit(main())
