"""A whole tile, from the start of the process to the file, compared with the original's design.

Ours: `dagster asset materialize` over chips in the bucket's layout, from a folder and from an S3 server on
loopback; and over a single chip, which shows the start-up time. The peer: `benchmarks.peer_tile`, from the
folder, and from S3 too with `--peer-on-s3`, which takes another two minutes. Both use the `small` network at
the precision of `auto`, and their vectors are compared. Quote the ratio of the two from one run.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.measure import clean_environment, materialize, measure
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import CHILE, write_chips
from clay_assets_tests.s3_server import S3Bucket, client, serving
from clay_model.device import resolve_devices, resolve_precision
from clay_model.spec import CHIP_SIZE

TILE = CHILE.tile
WAITED = re.compile(r"the encoder waited ([\d.]+) s of ([\d.]+) s")
CHIPS_ON_A_CPU, CHIPS_ON_A_GPU = 48, 4096
"""A minute's work, and several seconds'."""


@dataclass(frozen=True)
class Row:
    """One pipeline with its chips in one place.

    Attributes:
        pipeline: `ours` or `peer`.
        place: Where the chips are.
        chips: Number of chips.
        wall_s: Seconds from the start of the process to its end.
        cpu_s: CPU seconds.
        peak_mb: Peak memory, MB.
        encoding_s: Seconds from the first batch on; None if not measured.
        waited_s: Seconds of these that the encoder waited for chips; None if not measured.
    """

    pipeline: str
    place: str
    chips: int
    wall_s: float
    cpu_s: float
    peak_mb: int
    encoding_s: float | None = None
    waited_s: float | None = None

    @property
    def chips_per_s(self) -> float:
        """Chips by the wall time."""
        return self.chips / self.wall_s

    def __str__(self) -> str:
        encoding = f"{self.chips / self.encoding_s:.3f}" if self.encoding_s else ""
        waited = (
            f"{self.waited_s / self.encoding_s:.1%}" if self.encoding_s and self.waited_s is not None else ""
        )
        return (
            f"{self.pipeline + ', ' + self.place:14}{self.chips:6}{self.wall_s:7.1f} s{self.chips_per_s:9.3f}"
            f"{encoding:>10}{self.cpu_s:6.0f} s{self.peak_mb:6.0f} MB{waited:>8}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = CHIPS_ON_A_GPU if torch.cuda.is_available() else CHIPS_ON_A_CPU
    parser.add_argument("--chips", type=int, default=default, help="beyond 48 the same ones again")
    parser.add_argument("--only", choices=("local", "s3"), help="one of the two places of chips")
    parser.add_argument("--peer-on-s3", action="store_true", help="run the peer on S3 as well")
    arguments = parser.parse_args()
    peer_on = {"local"} | ({"s3"} if arguments.peer_on_s3 or arguments.only == "s3" else set())
    with tempfile.TemporaryDirectory(prefix="clay-tile-") as folder, ExitStack() as stack:
        root = Path(folder)
        write_untrained_checkpoint(root / "small.ckpt", model_size="small")
        for name, count in (("local", arguments.chips), ("one", 1)):
            _write_chips(root / name, count)
        rows = [_ours("one", {"CLAY_CHIPS_URI": str(root / "one")}, root, 1)]
        for name in ("local", "s3"):
            if arguments.only in (None, name):
                place = {"CLAY_CHIPS_URI": str(root / "local")}
                if name == "s3":
                    place = _upload(root / "local", stack.enter_context(serving()))
                rows.append(_ours(name, place, root, arguments.chips))
                if name in peer_on:
                    rows.append(_peer(name, place, root, arguments.chips))
    print(f"{'':14}{'chips':>6}{'wall':>9}{'chips/s':>9}{'encoding':>10}{'CPU':>8}{'peak':>9}{'waited':>8}")
    print(*rows, sep="\n")
    ratios = dict(_ratios(rows))
    for what, ratio in ratios.items():
        print(f"{what}: {ratio:.2f}")
    print(json.dumps({"benchmark": "tile", "rows": [asdict(row) for row in rows], "ratios": ratios}))


def _ratios(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Yield the ratios of ours to the peer, in chips per second; by default to the peer on the folder."""
    peers = {row.place: row for row in rows if row.pipeline == "peer"}
    for row in rows:
        peer = peers.get(row.place) or peers.get("local")
        if row.pipeline == "ours" and row.place != "one" and peer:
            yield f"ours, {row.place} : peer, {peer.place}", row.chips_per_s / peer.chips_per_s


def _write_chips(root: Path, count: int) -> None:
    """Write chips of real pixels at their true scale; beyond 48, links to them under other numbers."""
    write_chips(root, CHILE, min(count, CHIPS_ON_A_CPU), span=CHIP_SIZE)
    chips = sorted(root.rglob("*.tif"))
    for number in range(len(chips), count):
        chip = chips[number % len(chips)]
        chip.with_name(re.sub(r"_\d+\.tif$", f"_{1000 + number}.tif", chip.name)).hardlink_to(chip)


def _upload(chips: Path, endpoint: str) -> dict[str, str]:
    """Copy chips to S3; return the variables of a process that reads them."""
    bucket = S3Bucket(endpoint, "chips")
    client(endpoint).create_bucket(Bucket=bucket.name)
    store = bucket.store()
    for path in sorted(chips.rglob("*.tif")):
        store.put(str(path.relative_to(chips)), path)
    return {**bucket.environment, "CLAY_CHIPS_URI": bucket.uri()}


def _ours(name: str, place: Mapping[str, str], root: Path, count: int) -> Row:
    home = root / f"home-{name}"
    home.mkdir()
    variables = {"CLAY_CHECKPOINT": str(root / "small.ckpt"), "XDG_CACHE_HOME": str(root / "cache"), **place}
    measured = materialize(home, [TILE], variables)
    clock = WAITED.search(measured.output)
    assert clock, measured.output[-2000:]  # noqa: S101 - the asset logs it
    costs = (round(measured.wall, 2), round(measured.cpu, 1), round(measured.peak_mb))
    return Row("ours", name, count, *costs, encoding_s=float(clock[2]), waited_s=float(clock[1]))


def _peer(name: str, place: Mapping[str, str], root: Path, count: int) -> Row:
    """Run the peer on the chips of ours, and compare the vectors."""
    file = root / f"peer-{name}.parquet"
    command = [sys.executable, "-m", "benchmarks.peer_tile", f"{place['CLAY_CHIPS_URI']}/{TILE}"]
    command += [str(root / "small.ckpt"), str(file)]
    if resolve_precision("auto", resolve_devices("auto")[0]) == "fp32":
        command.append("--fp32")
    project = Path(__file__).resolve().parent.parent
    measured = measure(command, cwd=project, environment={**clean_environment(), **place})
    (our_file,) = (root / f"home-{name}" / "data" / "embeddings").glob("*.gpq")
    mine, theirs = _vectors(our_file), _vectors(file)
    assert mine.keys() == theirs.keys()  # noqa: S101
    worst = max(np.linalg.norm(mine[name] - theirs[name]) / np.linalg.norm(theirs[name]) for name in mine)
    if worst > 2e-2:  # more than bf16 rounding
        raise SystemExit(f"the vectors differ by {worst:.1e}: not the same network")
    return Row("peer", name, count, round(measured.wall, 2), round(measured.cpu, 1), round(measured.peak_mb))


def _vectors(file: Path) -> dict[str, NDArray[np.float32]]:
    """Return a file's vectors by the names of their chips."""
    rows = pq.read_table(file).to_pylist()
    return {Path(row["source_url"]).name: np.asarray(row["embeddings"]) for row in rows}


if __name__ == "__main__":
    main()
