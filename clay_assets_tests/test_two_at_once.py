"""Two concurrent runs on the same tiles in processes, while a reader polls the files."""

import io
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq
import pytest

from clay_assets.embedding.progress import Progress
from clay_assets.pipeline import TileJob, process_tiles
from clay_assets.publishing.validation import validate
from clay_assets.publishing.versions import published_files
from clay_assets.results.pieces import find_pieces
from clay_assets.state.states import TileStores
from clay_assets.storage import ObjectChanged, ObjectMissing, Store
from clay_assets_tests.embedding.scene import MeanEncoder
from clay_assets_tests.embedding.streaming import MeanEmbedder, chip_of_value
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.s3_server import S3Bucket

TILES = ("27WXM", "27WXN", "27WXP")
DATE = "2020-06-15"


def put(stores: TileStores, numbers: range) -> None:
    """Store chips of every tile, each with its number as the value of its pixels."""
    for tile in TILES:
        for number in numbers:
            stores.chips.write(f"{tile}/{DATE}/{chip_name(number, tile=tile)}", chip_of_value(number))


class Reader(threading.Thread):
    """Polls every tile's file; lists again if a file was replaced after the listing.

    Attributes:
        faults: Missing and invalid files.
        seen: Count of the files read, by number of rows.
    """

    def __init__(self, output: Store) -> None:
        super().__init__(daemon=True)
        self.faults: list[str] = []
        self.seen: Counter[int] = Counter()
        self.stop = threading.Event()
        self._output = output

    def run(self) -> None:
        """Poll until `stop` is set."""
        while not self.stop.is_set():
            for tile in TILES:
                self._check(tile)

    def _check(self, tile: str) -> None:
        for _ in range(20):
            try:
                files = published_files(self._output, 1, tile).get(tile, [])
                if not files:
                    self.faults.append(f"{tile} has no file")
                    return
                data = self._output.read(files[-1])
            except (ObjectChanged, ObjectMissing):
                continue
            name = PurePosixPath(files[-1].url).name
            self.faults += [f"{name}: {fault}" for fault in validate(io.BytesIO(data), name=name)]
            self.seen[pq.read_metadata(io.BytesIO(data)).num_rows] += 1
            return
        self.faults.append(f"{tile}: 20 listings in a row named a file that no longer existed")


@pytest.mark.parametrize(("place", "force"), [("folder", False), ("s3", True)], ids=["folder", "s3, forced"])
def test_two_runs_on_the_same_tiles_leave_one_valid_file_per_tile_at_any_time(
    place: str, force: bool, tmp_path: Path, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    address = str(tmp_path) if place == "folder" else bucket.uri("data")
    stores = TileStores(*(Store(f"{address}/{name}") for name in ("chips", "work", "output")))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(b"weights")
    put(stores, range(1, 4))
    encoder = MeanEncoder(Store(checkpoint), precision="fp32", device="cpu", embedder=MeanEmbedder())
    with Progress() as progress:
        process_tiles(TILES, TileJob(stores, encoder, check=False), lambda _: None, progress)
    put(stores, range(4, 10))

    reader = Reader(stores.output)
    program = [sys.executable, "-m", "clay_assets_tests.two_runs"]
    program += [address, str(checkpoint), "force" if force else "new", *TILES]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    runs = [
        subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        for _ in range(2)
    ]
    try:
        for run in runs:
            assert run.stdout is not None
            assert run.stdout.readline() == "ready\n"
        reader.start()
        (tmp_path / "go").touch()
        outputs = [run.communicate(timeout=120)[0] for run in runs]
    finally:
        reader.stop.set()
        for run in runs:
            run.kill()
            run.wait()
    reader.join()

    assert outputs == ["".join(f"{tile} None\n" for tile in TILES)] * 2
    assert reader.faults == []
    assert set(reader.seen) <= {3, 9}
    files = published_files(stores.output, 1)
    assert {tile: len(found) for tile, found in files.items()} == dict.fromkeys(TILES, 1)
    for (file,) in files.values():
        data = stores.output.read(file)
        assert validate(io.BytesIO(data), name=PurePosixPath(file.url).name) == []
        rows = pq.read_table(io.BytesIO(data), columns=["source_url", "embeddings"]).to_pylist()
        assert [row["embeddings"][0] for row in rows] == [int(row["source_url"][-8:-4]) for row in rows]
        assert len(rows) == 9
    assert find_pieces(stores.work) == {}
