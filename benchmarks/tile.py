"""A whole tile, from the start of the process to the file, beside the original's design.

Ours: `dagster asset materialize` over chips as the bucket has them, from a folder and from an S3 server on
loopback. The peer: `benchmarks.peer_tile`, from the folder; from S3 too with `--peer-on-s3`, which takes
another two minutes. Both with the `small` network, at the precision that `auto` picks. The ratio of the two
from one run is the figure to quote; both finish with the same vectors, which is checked.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import Measured, measure
from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import write_chips_of_tile
from clay_assets_tests.s3_server import S3Bucket, client, serving

TILE = "27WXN"
WAITED = re.compile(r"the encoder waited ([\d.]+) s of ([\d.]+) s")


@dataclass(frozen=True)
class Row:
    """One pipeline on one place of chips.

    Attributes:
        what: Which.
        wall_s: Seconds from the start of the process to its end.
        chips_per_s: Chips by those.
        cpu_s: CPU seconds.
        peak_mb: Peak memory, MB.
        waited: Share of its time that the encoder waited after the first batch; None where nobody counted.
    """

    what: str
    wall_s: float
    chips_per_s: float
    cpu_s: float
    peak_mb: int
    waited: float | None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=int, default=48)
    parser.add_argument("--only", choices=("local", "s3"), help="one of the two places of chips")
    parser.add_argument("--peer-on-s3", action="store_true", help="run the peer on S3 as well")
    arguments = parser.parse_args()
    peer_on = {"local"} | ({"s3"} if arguments.peer_on_s3 or arguments.only == "s3" else set())
    with tempfile.TemporaryDirectory(prefix="clay-tile-") as folder, ExitStack() as stack:
        root = Path(folder)
        chips = root / "chips"
        write_chips_of_tile(chips, TILE, arguments.chips)
        write_untrained_checkpoint(root / "small.ckpt", model_size="small")
        places: dict[str, tuple[str, Mapping[str, str]]] = {"local": (str(chips), {})}
        if arguments.only != "local":
            places["s3"] = _on_s3(chips, stack.enter_context(serving()))
        rows = [
            row
            for name, (uri, variables) in places.items()
            if arguments.only in (None, name)
            for row in _compare(name, uri, variables, root, arguments.chips, with_peer=name in peer_on)
        ]
    print(f"{'':16}{'wall':>9}{'chips/s':>9}{'CPU':>9}{'peak':>9}{'waited':>8}")
    for row in rows:
        waited = "" if row.waited is None else f"{100 * row.waited:7.1f}%"
        print(
            f"{row.what:16}{row.wall_s:7.1f} s{row.chips_per_s:9.3f}{row.cpu_s:7.0f} s"
            f"{row.peak_mb:6.0f} MB{waited}"
        )
    peers = {row.what.removeprefix("peer, "): row for row in rows if row.what.startswith("peer")}
    for row in rows:
        if row.what.startswith("ours"):
            peer = peers.get(row.what.removeprefix("ours, ")) or peers["local"]
            ratio = row.chips_per_s / peer.chips_per_s
            print(f"{row.what}: {ratio:.2f} times the chips a second of {peer.what}")
    print(json.dumps({"benchmark": "tile", "chips": arguments.chips, "rows": [asdict(row) for row in rows]}))


def _on_s3(chips: Path, endpoint: str) -> tuple[str, Mapping[str, str]]:
    bucket = S3Bucket(endpoint, "chips")
    client(endpoint).create_bucket(Bucket=bucket.name)
    store = bucket.store()
    for path in sorted(chips.rglob("*.tif")):
        store.put(str(path.relative_to(chips)), path)
    return bucket.uri(), bucket.environment


def _compare(
    name: str, uri: str, variables: Mapping[str, str], root: Path, count: int, *, with_peer: bool
) -> list[Row]:
    """Run ours and, if asked for, the peer beside it."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("CLAY_", "AWS_"))},
        **variables,
        "CLAY_CHIPS_URI": uri,
        "CLAY_CHECKPOINT": str(root / "small.ckpt"),
        "XDG_CACHE_HOME": str(root / f"cache-{name}"),
    }
    home = root / f"home-{name}"
    home.mkdir()
    (home / "tiles.txt").write_text(f"{TILE}\n")
    ours = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize"]
    ours += ["-m", "clay_assets.definitions", "--select", "*", "--partition", TILE]
    measured = measure(ours, cwd=home, environment=environment)
    waited = WAITED.search(measured.output)
    assert waited, measured.output[-2000:]  # noqa: S101 - the asset logs it
    row = _row(f"ours, {name}", measured, count, float(waited[1]) / float(waited[2]))
    if not with_peer:
        return [row]
    peer_file = root / f"peer-{name}.parquet"
    project = Path(__file__).resolve().parent.parent
    peer = [sys.executable, "-m", "benchmarks.peer_tile", f"{uri}/{TILE}"]
    peer += [str(root / "small.ckpt"), str(peer_file)]
    if " fp32 " in measured.output:
        peer.append("--fp32")
    peer_measured = measure(peer, cwd=project, environment=environment)
    (our_file,) = (home / "data" / "embeddings").glob("*.gpq")
    _agree(our_file, peer_file)
    return [row, _row(f"peer, {name}", peer_measured, count, None)]


def _row(what: str, measured: Measured, count: int, waited: float | None) -> Row:
    return Row(
        what,
        round(measured.wall, 2),
        round(count / measured.wall, 4),
        round(measured.cpu, 1),
        round(measured.peak_mb),
        waited,
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
