"""A whole tile, from the start of the process to the file, beside the original's design.

Ours: `dagster asset materialize` over chips as the bucket has them, from a folder and from an S3 server on
loopback; and over a single chip, which tells how long it takes to start. The peer: `benchmarks.peer_tile`,
from the folder; from S3 too with `--peer-on-s3`, which takes another two minutes. Both with the `small`
network, at the precision that `auto` picks. The ratio of the two from one run is the figure to quote; both
finish with the same vectors, which is checked.
"""

import argparse
import json
import os
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

from benchmarks.measure import Measured, measure
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
    """One pipeline on one place of chips.

    Attributes:
        pipeline: `ours` or `peer`.
        place: Where the chips are.
        chips: How many.
        wall_s: Seconds from the start of the process to its end.
        chips_per_s: Chips by those.
        encoding_per_s: Chips by the seconds from the first batch on; None where nobody counted.
        cpu_s: CPU seconds.
        peak_mb: Peak memory, MB.
        waited: Share of its time that the encoder waited after the first batch; None where nobody counted.
    """

    pipeline: str
    place: str
    chips: int
    wall_s: float
    chips_per_s: float
    encoding_per_s: float | None
    cpu_s: float
    peak_mb: int
    waited: float | None


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
        for name, count in (("chips", arguments.chips), ("one", 1)):
            _write_chips(root / name, count)
        places: dict[str, tuple[str, Mapping[str, str]]] = {"local": (str(root / "chips"), {})}
        if arguments.only != "local":
            places["s3"] = _on_s3(root / "chips", stack.enter_context(serving()))
        rows = [_ours("one", str(root / "one"), {}, root, 1)]
        for name, (uri, variables) in places.items():
            if arguments.only in (None, name):
                rows.append(_ours(name, uri, variables, root, arguments.chips))
                if name in peer_on:
                    rows.append(_peer(name, uri, variables, root, arguments.chips))
    print(f"{'':14}{'chips':>6}{'wall':>9}{'chips/s':>9}{'encoding':>10}{'CPU':>8}{'peak':>9}{'waited':>8}")
    for row in rows:
        encoding = "" if row.encoding_per_s is None else f"{row.encoding_per_s:.3f}"
        waited = "" if row.waited is None else f"{100 * row.waited:.1f}%"
        print(
            f"{row.pipeline + ', ' + row.place:14}{row.chips:6}{row.wall_s:7.1f} s{row.chips_per_s:9.3f}"
            f"{encoding:>10}{row.cpu_s:6.0f} s{row.peak_mb:6.0f} MB{waited:>8}"
        )
    ratios = dict(_ratios(rows))
    for what, ratio in ratios.items():
        print(f"{what}: {ratio:.2f}")
    table = [asdict(row) for row in rows]
    print(json.dumps({"benchmark": "tile", "rows": table, "ratios": ratios}))


def _ratios(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Chips per second of ours by the peer's, by the peer's on the local folder where it ran nowhere else."""
    peers = {row.place: row for row in rows if row.pipeline == "peer"}
    for row in rows:
        peer = peers.get(row.place) or peers.get("local")
        if row.pipeline == "ours" and row.place != "one" and peer:
            yield f"ours, {row.place} : peer, {peer.place}", row.chips_per_s / peer.chips_per_s


def _write_chips(root: Path, count: int) -> None:
    """So many chips of real pixels at their true scale; beyond 48, links to them under other numbers."""
    write_chips(root, CHILE, min(count, CHIPS_ON_A_CPU), span=CHIP_SIZE)
    chips = sorted(root.rglob("*.tif"))
    for number in range(len(chips), count):
        chip = chips[number % len(chips)]
        chip.with_name(re.sub(r"_\d+\.tif$", f"_{1000 + number}.tif", chip.name)).hardlink_to(chip)


def _on_s3(chips: Path, endpoint: str) -> tuple[str, Mapping[str, str]]:
    bucket = S3Bucket(endpoint, "chips")
    client(endpoint).create_bucket(Bucket=bucket.name)
    store = bucket.store()
    for path in sorted(chips.rglob("*.tif")):
        store.put(str(path.relative_to(chips)), path)
    return bucket.uri(), bucket.environment


def _ours(name: str, uri: str, variables: Mapping[str, str], root: Path, count: int) -> Row:
    home = root / f"home-{name}"
    home.mkdir()
    (home / "tiles.txt").write_text(f"{TILE}\n")
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
    command += ["-m", "clay_assets.definitions", "--select", "*", "--partition", TILE]
    measured = measure(command, cwd=home, environment=_environment(uri, variables, root))
    clock = WAITED.search(measured.output)
    assert clock, measured.output[-2000:]  # noqa: S101 - the asset logs it
    waited, encoding = float(clock[1]), float(clock[2])
    return _row("ours", name, measured, count, encoding, waited)


def _peer(name: str, uri: str, variables: Mapping[str, str], root: Path, count: int) -> Row:
    """The peer on the chips that ours ran on before; its vectors must be the same."""
    file = root / f"peer-{name}.parquet"
    command = [
        sys.executable,
        "-m",
        "benchmarks.peer_tile",
        f"{uri}/{TILE}",
        str(root / "small.ckpt"),
        str(file),
    ]
    if resolve_precision("auto", resolve_devices("auto")[0]) == "fp32":
        command.append("--fp32")
    project = Path(__file__).resolve().parent.parent
    measured = measure(command, cwd=project, environment=_environment(uri, variables, root))
    (our_file,) = (root / f"home-{name}" / "data" / "embeddings").glob("*.gpq")
    _agree(our_file, file)
    return _row("peer", name, measured, count)


def _environment(uri: str, variables: Mapping[str, str], root: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CLAY_", "AWS_"))}
    ours = {"CLAY_CHIPS_URI": uri, "CLAY_CHECKPOINT": str(root / "small.ckpt")}
    return {**inherited, **variables, **ours, "XDG_CACHE_HOME": str(root / "cache")}


def _row(
    pipeline: str,
    place: str,
    measured: Measured,
    count: int,
    encoding: float | None = None,
    waited: float | None = None,
) -> Row:
    return Row(
        pipeline,
        place,
        count,
        wall_s=round(measured.wall, 2),
        chips_per_s=round(count / measured.wall, 4),
        encoding_per_s=None if encoding is None else round(count / encoding, 4),
        cpu_s=round(measured.cpu, 1),
        peak_mb=round(measured.peak_mb),
        waited=None if waited is None or encoding is None else round(waited / encoding, 4),
    )


def _agree(ours: Path, peer: Path) -> None:
    """Stop if the two files differ by more than bf16 rounding."""
    mine, theirs = (
        {
            Path(row["source_url"]).name: np.asarray(row["embeddings"])
            for row in pq.read_table(file).to_pylist()
        }
        for file in (ours, peer)
    )
    assert mine.keys() == theirs.keys()  # noqa: S101
    worst = max(np.linalg.norm(mine[name] - theirs[name]) / np.linalg.norm(theirs[name]) for name in mine)
    if worst > 2e-2:
        raise SystemExit(f"the vectors differ by {worst:.1e}: not the same network")


if __name__ == "__main__":
    main()
