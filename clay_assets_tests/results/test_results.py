import datetime
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.chips import READER_VERSION
from clay_assets.publishing.writer import write_geoparquet
from clay_assets.results import (
    Fingerprint,
    KnownChip,
    Provenance,
    ResultsHeader,
    ResultsWriter,
    TileResults,
    TileSummary,
    results_key,
)
from clay_assets.results.outcomes import Embedded, Outcome, Skipped
from clay_assets.storage import AccessDenied, Store
from clay_assets_tests.embedding.streaming import number_of, sources
from clay_assets_tests.publishing.geoparquet_rows import PROVENANCE, rows

FINGERPRINT = Fingerprint("clay-v0-tiny", "c" * 64, "mean", "bf16", 1)
KEY = results_key("27WXN", FINGERPRINT)
WIDE = 2**20
"""Width of an embedding, chosen so that four fill a row group."""


def embedded(number: int, width: int = 3) -> Embedded:
    return Embedded(
        chip=sources("27WXN", number + 1)[number],
        date=datetime.date(2020, 6, 1) + datetime.timedelta(days=number),
        footprints=[shapely.to_wkb(shapely.box(number, 60, number + 1, 61))],
        vectors=np.full((1, width), number, dtype=np.float32),
        thumbnails=[bytes([number]) * 768],
        nodata=number / 8,
    )


def skipped(number: int) -> Skipped:
    return Skipped(sources("27WXN", number + 1)[number], "size", "has 256 x 256 pixels, expected 512 x 512")


def header(width: int = 3, *, remaining: int = 0) -> ResultsHeader:
    provenance = Provenance(
        FINGERPRINT, (width,), untrained=True, device="cpu", software="torch/9", reader=3, max_nodata=0.5
    )
    skips = [{"source_url": "s3://chips/ä.tif", "reason": "size", "detail": "got “256”"}]
    summary = TileSummary(
        2, skips, 1.5, 2, 3_000, [1.0, 2.0, 3.0, 4.0], nodata=0.25, windows=2, picture="![picture]()"
    )
    return ResultsHeader(provenance, "0123456789abcdef", summary, remaining)


def store_results(store: Store, outcomes: Sequence[Outcome], width: int = 3) -> None:
    with ResultsWriter(width) as writer:
        for outcome in outcomes:
            writer.add(outcome)
        writer.store(store, "27WXN", header(width))


def numbers(table: pa.Table) -> list[int]:
    return [int(url[-8:-4]) for url in table["source_url"].to_pylist()]


def opened(store: Store) -> TileResults:
    results = TileResults.open(store, "27WXN", FINGERPRINT)
    assert results is not None
    return results


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


def test_stored_results_are_read_back_unchanged(store: Store) -> None:
    store_results(store, [embedded(0), skipped(1), embedded(2)])

    with opened(store) as results:
        assert results.header == header()
        table = results.columns(["source_url", "etag", "size", "date", "reason", "detail", "embeddings"])
        (thumbnails,) = results.columns(["thumbnail"]).columns
        chips = results.chips()

    assert table.to_pylist() == [
        {
            "source_url": outcome.chip.url,
            "etag": outcome.chip.etag,
            "size": 1_000,
            "date": outcome.date if isinstance(outcome, Embedded) else None,
            "reason": None if isinstance(outcome, Embedded) else "size",
            "detail": None if isinstance(outcome, Embedded) else outcome.detail,
            "embeddings": [float(number_of(outcome.chip))] * 3 if isinstance(outcome, Embedded) else None,
        }
        for outcome in (embedded(0), skipped(1), embedded(2))
    ]
    key = "claytile_27WXN_20200615_v02_{:04}.tif".format
    assert chips == [
        KnownChip(key(0), "etag-0", 0, None, READER_VERSION, 0.0),
        KnownChip(key(1), "etag-1", 0, "size", READER_VERSION, None),
        KnownChip(key(2), "etag-2", 0, None, READER_VERSION, 0.25),
    ]
    assert thumbnails.to_pylist() == [bytes(768), None, b"\x02" * 768]


def test_vectors_of_every_level_are_kept_row_by_row(store: Store) -> None:
    vectors = np.arange(3 * 16 * 16 * 4, dtype=np.float32).reshape(3, 16, 16, 4)
    chip = replace(embedded(0), vectors=vectors, footprints=[b"a", b"b", b"c"], thumbnails=[bytes(768)] * 3)
    store_results(store, [chip], 1024)

    with opened(store) as results:
        kept = results.columns(["embeddings"])["embeddings"].to_pylist()
        table = results.columns(["source_url", "window", "geometry"])

    assert kept == [vector.reshape(-1).tolist() for vector in vectors]
    assert table["source_url"].to_pylist() == [chip.chip.url] * 3
    assert table["window"].to_pylist() == [0, 1, 2]
    assert table["geometry"].to_pylist() == [b"a", b"b", b"c"]


def test_header_counts_the_remaining_chips_of_an_interrupted_run(store: Store) -> None:
    with ResultsWriter(3) as writer:
        writer.add(embedded(0))
        url = writer.store(store, "27WXN", header(remaining=41))

    with opened(store) as results:
        assert results.header.remaining == 41
    word = FINGERPRINT.folder.removeprefix("clay-v0-tiny-mean-bf16-")
    assert re.fullmatch("[0-9a-f]{8}", word)
    assert url == store.url(f"chip_embeddings/clay-v0-tiny-mean-bf16-{word}/27WXN.parquet")


def test_rows_are_taken_in_any_order_across_row_groups(store: Store) -> None:
    store_results(store, [embedded(number, WIDE) for number in range(9)], WIDE)
    expected = [8, 0, 1, 5, 2, 2, 7, 4]

    with opened(store) as results:
        tables = list(results.take(expected))
        vectors = [row[0] for table in tables for row in table["embeddings"].combine_chunks().to_numpy(False)]
        nothing = list(results.take([]))

    assert [number for table in tables for number in numbers(table)] == expected
    assert vectors == expected
    assert nothing == []


def test_rows_copied_one_by_one_share_row_groups(store: Store) -> None:
    store_results(store, [embedded(number) for number in range(40)])
    with opened(store) as results, ResultsWriter(3) as writer:
        for row in range(0, 40, 2):
            for table in results.take([row]):
                writer.copy(table)
        writer.add(skipped(50))
        writer.store(store, "27WXN", header())

    with opened(store) as results:
        kept = numbers(results.columns(["source_url"]))
    groups = pq.ParquetFile(store.url(KEY)).num_row_groups

    assert kept == [*range(0, 40, 2), 50]
    assert groups == 1


def test_large_vectors_are_written_in_row_groups_of_16_megabytes(store: Store) -> None:
    store_results(store, [embedded(number, WIDE) for number in range(9)], WIDE)

    file = pq.ParquetFile(store.url(KEY))

    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 4, 1]


def test_opening_a_tile_without_results_gives_none(store: Store) -> None:
    assert TileResults.open(store, "27WXN", FINGERPRINT) is None


def _truncated(store: Store) -> bytes:
    store_results(store, [embedded(0)])
    return store.read(KEY)[:-20]


def _with_a_broken_footer(store: Store) -> bytes:
    store_results(store, [embedded(0)])
    data = bytearray(store.read(KEY))
    length = int.from_bytes(data[-8:-4], "little")
    data[-8 - length : -8 - length // 2] = b"\xff" * (length - length // 2)
    return bytes(data)


def _unrelated_parquet(_: Store) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    return bytes(sink.getvalue())


def _of_another_version(store: Store) -> bytes:
    store_results(store, [embedded(0)])
    with opened(store) as results:
        table = results.columns(["source_url", "etag", "embeddings"])
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(header().to_metadata()), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"text",
        _truncated,
        _with_a_broken_footer,
        _unrelated_parquet,
        _of_another_version,
    ],
    ids=["empty", "text", "truncated", "broken footer", "unrelated Parquet", "another version's columns"],
)
def test_an_unreadable_file_counts_as_no_results(store: Store, damage: Callable[[Store], bytes]) -> None:
    store.write(KEY, damage(store))

    assert TileResults.open(store, "27WXN", FINGERPRINT) is None


def test_a_store_that_denies_access_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / FINGERPRINT.folder).mkdir()
    (tmp_path / "outside" / FINGERPRINT.folder / "27WXN.parquet").write_bytes(b"")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "chip_embeddings").symlink_to(tmp_path / "outside")

    with pytest.raises(AccessDenied, match="leaves"):
        TileResults.open(Store(tmp_path / "work"), "27WXN", FINGERPRINT)


def test_an_interrupted_writer_removes_its_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with suppress(KeyboardInterrupt), ResultsWriter(3) as writer:
        writer.add(embedded(0))
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []
    assert not store.exists(KEY)


READ_WITH_FLIPPED_BITS = """
import sys
from pathlib import Path
from clay_assets.parquet import DamagedFileError
from clay_assets.publishing.validation import validate
from clay_assets.storage import Store
from clay_assets.results import Fingerprint, TileResults, results_key

published, work = Path(sys.argv[1]), Path(sys.argv[2])
fingerprint = Fingerprint("clay-v0-tiny", "c" * 64, "mean", "bf16", 1)
store, results = Store(work), work / results_key("27WXN", fingerprint)
for path in (published, results):
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    for place in range(len(whole) - 8 - footer, len(whole) - 8, 3):  # every bit of a byte in turn
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        if path == published:
            validate(path)
            continue
        opened = TileResults.open(store, "27WXN", fingerprint)
        if opened is not None:
            with opened:
                try:
                    opened.chips()
                except DamagedFileError:
                    pass
print("alive")
"""


def test_no_flipped_bit_in_a_footer_ends_the_process(store: Store, tmp_path: Path) -> None:
    store_results(store, [embedded(0), skipped(1), embedded(2)])
    published = tmp_path / "27WXN_20200615_20210703_v001.gpq"
    write_geoparquet(published, [rows(6, (16,))], (16,), PROVENANCE)

    reading = subprocess.run(
        [sys.executable, "-c", READ_WITH_FLIPPED_BITS, published, tmp_path / "work"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (reading.returncode, reading.stdout) == (0, "alive\n"), reading.stderr[-2000:]
