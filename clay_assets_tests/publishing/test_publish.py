import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.publishing.publish import Published, ResultsMissing, publish_tile
from clay_assets.publishing.schema import read_provenance
from clay_assets.publishing.validation import validate
from clay_assets.publishing.versions import published_files
from clay_assets.results import Provenance, ResultsHeader, ResultsWriter, TileSummary
from clay_assets.results.header import Fingerprint, chips_digest
from clay_assets.results.outcomes import Embedded, NoUsableChips, Outcome, Skipped
from clay_assets.storage import AccessDenied, Store, StoredObject
from clay_assets.tiles.inventory import InventoryMissing, write_inventory
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.tile_scene import target_of

TILE = "27WXN"
FINGERPRINT = Fingerprint("clay-v0-small", "c" * 64, "mean", "fp32", 1)


@dataclass(frozen=True)
class Row:
    """A chip and its outcome.

    Attributes:
        date: Acquisition date, YYYY-MM-DD.
        number: Number of the chip.
        usable: Whether it was embedded.
        etag: ETag of the object.
    """

    date: str
    number: int
    usable: bool = True
    etag: str = "1"

    @property
    def chip(self) -> StoredObject:
        """The object as a listing has it."""
        name = chip_name(self.number, date=self.date)
        return StoredObject(f"s3://chips/{TILE}/{self.date}/{name}", 9_000_000, self.etag)

    def outcome(self, shape: tuple[int, ...]) -> Outcome:
        """Its outcome, with a vector that only this chip has."""
        if not self.usable:
            return Skipped(self.chip, "size", "has 256 x 256 pixels, expected 512 x 512")
        day = datetime.date.fromisoformat(self.date)
        vector = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1000 * self.number + day.day
        footprint = shapely.to_wkb(shapely.box(self.number, 60, self.number + 1, 61))
        return Embedded(self.chip, day, [footprint], vector[None], [bytes(768)], nodata=0.125)


SUMMER = (Row("2021-07-01", 1), Row("2020-06-15", 2), Row("2020-06-15", 10), Row("2020-06-15", 1))


class Workspace:
    """A work store, and an output store that may be on S3."""

    def __init__(self, work: Store, output: Store) -> None:
        self.work = work
        self.output = output

    def finish(
        self,
        rows: Sequence[Row],
        *,
        shape: tuple[int, ...] = (4,),
        fingerprint: Fingerprint = FINGERPRINT,
        claimed: Sequence[Row] = (),
    ) -> None:
        """Store the inventory and results, whose header may claim other chips."""
        provenance = Provenance(
            fingerprint, shape, untrained=False, device="cuda:7", software="clay-assets/0 torch/0.1"
        )
        skipped = [
            {"source_url": row.chip.url, "reason": "size", "detail": "small"}
            for row in rows
            if not row.usable
        ]
        summary = TileSummary(len(rows) - len(skipped), skipped, 1.0, len(rows), 0, [])
        listed = [row.chip for row in claimed or rows]
        write_inventory(self.work, TILE, listed)
        with ResultsWriter(provenance.width) as writer:
            for row in rows:
                writer.add(row.outcome(shape))
            digest = chips_digest(TILE, listed)
            writer.store(self.work, TILE, ResultsHeader(provenance, digest, summary))

    def publish(self, version: int = 1, *, fingerprint: Fingerprint = FINGERPRINT) -> Published:
        """Publish the tile."""
        target = target_of(fingerprint)
        return publish_tile(self.work, self.output, TILE, version=version, target=target)

    def names(self) -> list[str]:
        """Names of the published files."""
        return [PurePosixPath(file.url).name for file in self.output.list()]

    def table(self, name: str) -> pa.Table:
        """Read a published file with pyarrow."""
        return pq.read_table(pa.BufferReader(self.output.read(name)))


@pytest.fixture(params=["folder", "s3"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    if request.param == "folder":
        return Workspace(Store(tmp_path / "work"), Store(tmp_path / "output"))
    bucket: S3Bucket = request.getfixturevalue("bucket")
    return Workspace(bucket.store("work"), bucket.store("deep/output"))


def test_published_file_is_named_after_tile_dates_and_version(workspace: Workspace) -> None:
    workspace.finish([*SUMMER, Row("2023-12-31", 5, usable=False)])

    published = workspace.publish(version=7)

    assert workspace.names() == ["27WXN_20200615_20210701_v007.gpq"]
    assert published.url == workspace.output.url("27WXN_20200615_20210701_v007.gpq")
    assert (published.rows, published.written) == (4, True)
    assert (str(published.first), str(published.last)) == ("2020-06-15", "2021-07-01")
    assert published.bytes == workspace.output.stat(published.url).size


def test_rows_are_sorted_by_date_then_chip_number_with_their_own_vectors(workspace: Workspace) -> None:
    workspace.finish([*SUMMER, Row("2020-06-15", 3, usable=False)])

    table = workspace.table(PurePosixPath(workspace.publish().url).name)

    expected = [SUMMER[3], SUMMER[1], SUMMER[2], SUMMER[0]]
    outcomes = [row.outcome((4,)) for row in expected]
    assert table["source_url"].to_pylist() == [row.chip.url for row in expected]
    assert [str(day) for day in table["date"].to_pylist()] == [row.date for row in expected]
    vectors = table["embeddings"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(vectors, [o.vectors[0] for o in outcomes if isinstance(o, Embedded)])
    assert table["geometry"].to_pylist() == [o.footprints[0] for o in outcomes if isinstance(o, Embedded)]


@pytest.mark.parametrize("shape", [(4,), (16, 16, 4), (6, 16, 16, 4)], ids=["mean", "patch", "group"])
def test_published_file_is_valid_at_every_level(tmp_path: Path, shape: tuple[int, ...]) -> None:
    workspace = Workspace(Store(tmp_path / "work"), Store(tmp_path / "output"))
    workspace.finish(SUMMER, shape=shape)

    published = workspace.publish()

    assert validate(Path(published.url)) == []
    table = pq.read_table(published.url)
    assert tuple(table.schema.field("embeddings").type.shape) == shape
    assert table.schema.equals(published.schema)
    last = SUMMER[0].outcome(shape)
    assert isinstance(last, Embedded)
    np.testing.assert_array_equal(
        table["embeddings"].combine_chunks().to_numpy_ndarray()[-1], last.vectors[0]
    )


def test_footer_has_the_provenance(tmp_path: Path) -> None:
    workspace = Workspace(Store(tmp_path / "work"), Store(tmp_path / "output"))
    workspace.finish([*SUMMER, Row("2020-06-15", 3, usable=False)])

    provenance = read_provenance(Path(workspace.publish().url))

    assert provenance["model"] == "clay-v0-small"
    assert provenance["checkpoint_sha256"] == "c" * 64
    assert (provenance["level"], provenance["precision"], provenance["preprocessing"]) == (
        "mean",
        "fp32",
        "1",
    )
    assert (provenance["chips"], provenance["skipped"]) == ("5", "1")
    assert provenance["weights"] == "as the checkpoint has them"
    # Versions of the machine that made the vectors, which may be another one.
    assert (provenance["software"], provenance["device"]) == ("clay-assets/0 torch/0.1", "cuda:7")


def test_publishing_again_does_not_rewrite_an_unchanged_file(workspace: Workspace) -> None:
    workspace.finish(SUMMER)
    first = workspace.publish()
    before = workspace.output.stat(first.url)
    time.sleep(0.01)

    again = workspace.publish()

    assert workspace.output.stat(first.url) == before
    assert again == replace(first, written=False)


@pytest.mark.parametrize(
    ("rows", "fingerprint"),
    [
        ((*SUMMER[:3], Row("2020-06-15", 1, etag="2")), FINGERPRINT),
        ((*SUMMER, Row("2020-06-15", 11)), FINGERPRINT),
        (SUMMER, replace(FINGERPRINT, checkpoint_sha256="d" * 64)),
    ],
    ids=["a chip's content", "another chip", "another checkpoint"],
)
def test_changed_inputs_write_the_file_again(
    tmp_path: Path, rows: Sequence[Row], fingerprint: Fingerprint
) -> None:
    workspace = Workspace(Store(tmp_path / "work"), Store(tmp_path / "output"))
    workspace.finish(SUMMER)
    first = workspace.publish()
    before = workspace.output.stat(first.url)

    workspace.finish(rows, fingerprint=fingerprint)
    again = workspace.publish(fingerprint=fingerprint)

    assert again.written
    assert again.url == first.url
    assert workspace.output.stat(first.url) != before


def test_earlier_file_is_removed_when_the_dates_change(workspace: Workspace) -> None:
    workspace.finish(SUMMER)
    workspace.publish()

    workspace.finish([*SUMMER, Row("2023-06-01", 1)])
    workspace.publish()

    assert workspace.names() == ["27WXN_20200615_20230601_v001.gpq"]
    assert workspace.table("27WXN_20200615_20230601_v001.gpq").num_rows == 5


def test_other_versions_other_tiles_and_other_files_stay(workspace: Workspace) -> None:
    others = {
        "27WXN_20200615_20210701_v002.gpq",
        "27WXP_20190615_20190701_v001.gpq",
        "27WXN_notes_v001.txt",
        "27WXN_old/27WXN_20190101_20190101_v001.gpq",
    }
    for name in others:
        workspace.output.write(name, b"unrelated")
    workspace.finish(SUMMER)

    workspace.publish()
    workspace.publish(version=3)

    kept = {file.url.removeprefix(workspace.output.url("")).lstrip("/") for file in workspace.output.list()}
    assert kept == others | {"27WXN_20200615_20210701_v001.gpq", "27WXN_20200615_20210701_v003.gpq"}
    for name in others:
        assert workspace.output.read(name) == b"unrelated"


@pytest.mark.parametrize("content", [b"", b"no Parquet at all"], ids=["empty", "text"])
def test_damaged_file_of_the_same_name_is_overwritten(workspace: Workspace, content: bytes) -> None:
    workspace.output.write("27WXN_20200615_20210701_v001.gpq", content)
    workspace.finish(SUMMER)

    published = workspace.publish()

    assert published.written
    assert workspace.table("27WXN_20200615_20210701_v001.gpq").num_rows == 4


def test_old_file_stays_until_the_new_one_is_stored(tmp_path: Path) -> None:
    class ReadOnly(Store):
        def put(self, target: str, path: object) -> None:  # noqa: ARG002
            raise AccessDenied("read only")

    workspace = Workspace(Store(tmp_path / "work"), Store(tmp_path / "output"))
    workspace.finish(SUMMER)
    workspace.publish()
    workspace.finish([*SUMMER, Row("2023-06-01", 1)])
    workspace.output = ReadOnly(tmp_path / "output")

    with pytest.raises(AccessDenied):
        workspace.publish()

    assert workspace.names() == ["27WXN_20200615_20210701_v001.gpq"]


def test_tile_without_results_names_the_asset_to_materialize(workspace: Workspace) -> None:
    with pytest.raises(
        ResultsMissing,
        match=r"27WXN has no results of .* \(such as \S+27WXN.parquet\): materialize chip_embeddings",
    ):
        workspace.publish()


@pytest.mark.parametrize(
    ("listed", "phrase"),
    [
        ((*SUMMER, Row("2020-06-15", 11)), "1 chips of its inventory without a result, such as .*_0011.tif"),
        (SUMMER[:3], "has 1 results of missing or changed chips, such as .*20200615_v02_0001.tif"),
        (
            (*SUMMER[:3], Row("2020-06-15", 1, etag="2")),
            "1 chips of its inventory without a result.*; 1 results of missing or changed chips",
        ),
    ],
    ids=["a new chip", "a removed chip", "a changed chip"],
)
def test_results_that_differ_from_the_inventory_are_not_published(
    workspace: Workspace, listed: Sequence[Row], phrase: str
) -> None:
    workspace.finish(SUMMER)
    write_inventory(workspace.work, TILE, [row.chip for row in listed])

    with pytest.raises(ResultsMissing, match=f"{phrase}.*: materialize chip_embeddings again, then publish"):
        workspace.publish()

    assert published_files(workspace.output, 1) == {}


def test_results_that_lack_a_chip_they_claim_are_not_published(workspace: Workspace) -> None:
    workspace.finish(SUMMER[:3], claimed=SUMMER)

    with pytest.raises(ResultsMissing, match=r"1 chips of its inventory .* with the config `force: true`"):
        workspace.publish()


def test_tile_without_an_inventory_names_the_asset_to_materialize(workspace: Workspace) -> None:
    workspace.finish(SUMMER)
    (inventory,) = workspace.work.list("chip_inventory/")
    workspace.work.delete(inventory)

    with pytest.raises(InventoryMissing, match="materialize chip_inventory first"):
        workspace.publish()


def test_tile_of_bad_chips_publishes_nothing(workspace: Workspace) -> None:
    workspace.finish([Row("2020-06-15", 1, usable=False)])

    with pytest.raises(NoUsableChips, match="none of its 1 chips could be embedded"):
        workspace.publish()

    assert not workspace.output.exists("27WXN_20200615_20210701_v001.gpq")


def test_preview_shows_the_first_rows(tmp_path: Path) -> None:
    workspace = Workspace(Store(tmp_path / "work"), Store(tmp_path / "output"))
    workspace.finish([Row("2020-06-15", number) for number in range(1, 9)])

    head = workspace.publish().head

    assert [row["date"] for row in head] == ["2020-06-15"] * 5
    assert head[4]["source_url"].endswith("_0005.tif")
