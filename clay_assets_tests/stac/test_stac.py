"""Items, Collection, model and their table, checked by the schemas, pystac, geopandas and rustac."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rustac
import shapely
from jsonschema import Draft7Validator
from PIL import Image

from clay_assets.reading import MixedEmbeddings, read_vectors
from clay_assets.reading.files import find_files
from clay_assets.reading.scan import footers
from clay_assets.results.picture import tile_picture
from clay_assets.stac.catalog import as_png, publish_item, write_collection
from clay_assets.stac.collection import model_item
from clay_assets.stac.item import common_folder, file_item
from clay_assets.stac.parts import Json
from clay_assets.storage import Store
from clay_assets_tests.reading.collection import (
    CHIPS,
    DAYS,
    PROVENANCE,
    WIDTH,
    chip_url,
    clay_like,
    squares,
    write,
)
from clay_assets_tests.reading.collection import (
    write_collection as write_files,
)
from clay_assets_tests.s3_server import S3Bucket
from clay_assets_tests.stac.schemas import faults

NAME = "27WXN_20200615_20210703_v001.gpq"
MADE = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
ENERGY = {"device_type": "cpu", "energy_kwh": 0.01, "inference_duration_s": 60.0, "avg_power_w": 600.0}
EMBEDDINGS = "stac-embeddings-v0.0.1.json"


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Store, Store]:
    """Two published files, and an empty catalog."""
    write_files(tmp_path / "embeddings")
    return Store(tmp_path / "embeddings"), Store(tmp_path / "stac")


def picture() -> str:
    """A picture as in a tile's results."""
    footprints = list(shapely.to_wkb(squares("27WXN")))
    thumbnails = [bytes([number] * 768) for number in range(CHIPS)]
    return tile_picture(footprints, [DAYS[0]] * CHIPS, clay_like(CHIPS, 1), thumbnails)


def read(stac: Store, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stac.read(key))
    return found


def published(stores: tuple[Store, Store]) -> dict[str, Any]:
    output, stac = stores
    publish_item(output, stac, NAME, picture=picture(), energy=ENERGY)
    return read(stac, f"v001/items/{NAME.removesuffix('.gpq')}.json")


def described(output: Store) -> Json:
    """The Item of a file as `file_item` makes it."""
    return file_item(find_files(Path(output.uri) / NAME)[0], href="a.gpq", made=MADE)


def test_item_describes_the_file(stores: tuple[Store, Store]) -> None:
    made = published(stores)

    path = Path(stores[0].uri) / NAME
    properties, asset = made["properties"], made["assets"]["embeddings"]
    assert made["id"] == "27WXN_20200615_20210703_v001"
    assert made["bbox"] == pytest.approx(shapely.total_bounds(squares("27WXN")).tolist())
    assert shapely.geometry.shape(made["geometry"]).buffer(1e-9).contains(shapely.union_all(squares("27WXN")))
    assert properties["datetime"] is None
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2020-06-15T00:00:00Z",
        "2021-07-03T23:59:59Z",
    )
    assert described(stores[0])["properties"]["processing:datetime"] == "2024-05-06T07:08:09Z"
    assert properties["processing:software"]["torch"] == "2.13.0"
    assert properties["grid:code"] == "MGRS-27WXN"
    assert properties["gsd"] == 10
    assert properties["table:row_count"] == pq.read_metadata(path).num_rows
    assert [column["name"] for column in properties["table:columns"]] == pq.read_schema(path).names
    assert properties["emb:runtime_parameters"]["precision"] == "fp32"
    assert properties["emb:energy"] == ENERGY
    assert (properties["clay:chips"], properties["clay:skipped"]) == (25, 1)
    assert properties["clay:chip_pixels"] == 512
    assert asset["file:size"] == path.stat().st_size
    assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert (Path(stores[1].uri) / "v001/items" / asset["href"]).resolve() == path.resolve()
    sources = [link["href"] for link in made["links"] if link["rel"] == "emb:source-data"]
    assert sources == ["s3://chips/27WXN/"]


def test_items_collection_and_model_pass_their_schemas_and_pystac_reads_them(
    stores: tuple[Store, Store],
) -> None:
    published(stores)

    done = write_collection(*stores, version=1, license="CC-BY-4.0", checkpoint="s3://ckpt/clay.ckpt")

    folder = Path(stores[1].uri) / "v001"
    collection = json.loads((folder / "collection.json").read_text())
    model = json.loads((folder / "model.json").read_text())
    items = [json.loads(path.read_text()) for path in sorted((folder / "items").glob("*.json"))]
    assert faults(collection, EMBEDDINGS) == []
    assert faults(collection, "collection.json") == []
    for one in items:
        assert faults(one, EMBEDDINGS) == []
        assert faults(one, "item.json") == []
    assert faults(model, "item.json") == []
    assert faults(model, "mlm-v1.4.0.json") == []
    assert (done.items, done.rows, done.added) == (2, 4 * CHIPS, ["27WXM_20200615_20210703_v001.gpq"])

    found = pystac.Collection.from_file(str(folder / "collection.json"))
    assert [one.id for one in found.get_items()] == [one["id"] for one in items]
    assert found.license == "CC-BY-4.0"
    assert found.extent.spatial.bboxes[0] == pytest.approx(
        shapely.total_bounds(np.concatenate([squares("27WXM"), squares("27WXN")])).tolist()
    )
    (linked,) = found.get_links("emb:model")
    mlm = pystac.Item.from_file(linked.get_absolute_href() or "").ext.mlm
    assert list(mlm.input[0].bands)[:3] == ["B02", "B03", "B04"]
    scaling = model["properties"]["mlm:input"][0]["value_scaling"]
    assert scaling[12] == {"type": "z-score", "mean": 499.46, "stddev": 880.35}  # of the terrain
    assert mlm.input[0].input.shape == [-1, 13, 512, 512]
    assert mlm.output[0].result.shape == [-1, WIDTH]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one | {"stac_version": "1.1.0"}, "1.0.0"),
        (lambda one: one | {"properties": one["properties"] | {"emb:dimensions": 48}}, "emb:dimensions"),
        (lambda one: one | {"assets": {"data": one["assets"]["embeddings"]}}, "embeddings"),
    ],
    ids=["a later STAC", "dimensions on an Item", "an asset of another name"],
)
def test_schema_rejects_what_the_extension_forbids(
    stores: tuple[Store, Store],
    change: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
) -> None:
    assert any(message in fault for fault in faults(change(published(stores)), EMBEDDINGS))


def test_repeated_call_changes_nothing_and_restores_missing_parts(stores: tuple[Store, Store]) -> None:
    output, stac = stores
    first = published(stores)
    item_path = Path(stac.uri) / f"v001/items/{first['id']}.json"
    written = item_path.stat().st_mtime_ns

    publish_item(output, stac, NAME, picture=picture())
    assert item_path.stat().st_mtime_ns == written

    item_path.with_suffix(".png").unlink()
    publish_item(output, stac, NAME, picture=picture())
    assert Image.open(item_path.with_suffix(".png")).format == "PNG"

    item_path.write_text("{")
    publish_item(output, stac, NAME)
    again = read(stac, f"v001/items/{first['id']}.json")
    del first["properties"]["emb:energy"], first["properties"]["processing:datetime"]
    del again["properties"]["processing:datetime"]
    assert again == first


def test_item_is_rewritten_with_its_file(stores: tuple[Store, Store]) -> None:
    output, stac = stores
    published(stores)

    write(Path(output.uri), "27WXN", 7, provenance=PROVENANCE | {"inputs": "of other chips"})
    publish_item(output, stac, NAME)
    changed = read(stac, f"v001/items/{NAME.removesuffix('.gpq')}.json")
    assert changed["properties"]["clay:inputs"] == "of other chips"
    digest = hashlib.sha256(output.read(NAME)).hexdigest()
    assert changed["assets"]["embeddings"]["file:checksum"] == f"1220{digest}"

    output.delete(NAME)
    path = write(Path(output.uri), "27WXN", 7, days=DAYS[:1])
    publish_item(output, stac, path.name)
    assert [Path(found.url).name for found in stac.list("v001/items/")] == [
        "27WXN_20200615_20200615_v001.json"
    ]


def test_collection_drops_items_of_removed_files(stores: tuple[Store, Store]) -> None:
    output, stac = stores
    write_collection(output, stac, version=1)
    output.delete(NAME)

    done = write_collection(output, stac, version=1)

    assert (done.items, done.added) == (1, [])
    assert [Path(found.url).name for found in stac.list("v001/items/")] == [
        "27WXM_20200615_20210703_v001.json"
    ]


def test_items_edited_by_others_keep_their_times_and_links(stores: tuple[Store, Store]) -> None:
    item = published(stores)
    key = f"v001/items/{item['id']}.json"
    naive, precise = "2020-06-15T01:02:03", "2021-07-03T23:59:59.1234567+02:00"
    item["properties"] |= {"start_datetime": naive, "end_datetime": precise}
    stores[1].write(key, json.dumps(item | {"id": "renamed"}).encode())

    write_collection(*stores, version=1)

    frame = geopandas.read_parquet(Path(stores[1].uri) / "v001/items.parquet").set_index("id")
    assert str(frame["start_datetime"]["renamed"]) == "2020-06-15 01:02:03+00:00"
    assert str(frame["end_datetime"]["renamed"]) == "2021-07-03 21:59:59.123456+00:00"
    links = [link["href"] for link in read(stores[1], "v001/collection.json")["links"]]
    assert key.removeprefix("v001/") in links


def test_table_of_items_is_read_by_geopandas_and_by_rustac(stores: tuple[Store, Store]) -> None:
    write_collection(*stores, version=1)
    path = Path(stores[1].uri) / "v001/items.parquet"

    frame = geopandas.read_parquet(path)
    read_back = rustac.read_sync(str(path))

    assert frame["id"].tolist() == ["27WXM_20200615_20210703_v001", "27WXN_20200615_20210703_v001"]
    assert frame["table:row_count"].tolist() == [2 * CHIPS] * 2
    assert str(frame["start_datetime"][0]) == "2020-06-15 00:00:00+00:00"
    assert frame.geometry[1].equals(shapely.geometry.shape(described(stores[0])["geometry"]))
    assert [one["id"] for one in read_back["features"]] == frame["id"].tolist()
    assert read_back["features"][1]["properties"]["grid:code"] == "MGRS-27WXN"
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    schema = Path(__file__).parent.parent / "schemas" / "geoparquet-v1.1.0.json"
    definition = json.loads(schema.read_text())
    definition["properties"]["columns"]["patternProperties"][".+"]["properties"]["crs"] = {"type": "object"}
    assert Draft7Validator(definition).is_valid(geo)


def test_mean_is_that_of_all_vectors(stores: tuple[Store, Store]) -> None:
    write_collection(*stores, version=1)

    stored = read(stores[1], "v001/mean.json")
    _, vectors = read_vectors(stores[0].uri)
    np.testing.assert_allclose(stored["mean"], vectors.mean(axis=0, dtype=np.float64), atol=1e-6)
    assert stored["rows"] == len(vectors)


def test_catalog_in_a_bucket_names_its_files_by_full_url(bucket: S3Bucket, tmp_path: Path) -> None:
    for path in write_files(tmp_path / "embeddings").iterdir():
        bucket.store("embeddings").put(path.name, path)

    write_collection(bucket.store("embeddings"), bucket.store("stac"), version=1)

    one = read(bucket.store("stac"), "v001/items/27WXN_20200615_20210703_v001.json")
    assert one["assets"]["embeddings"]["href"] == bucket.uri(f"embeddings/{NAME}")
    assert faults(one, EMBEDDINGS) == []


def test_files_of_two_models_are_refused_as_a_collection(stores: tuple[Store, Store]) -> None:
    write(Path(stores[0].uri), "27WXN", 1, provenance=PROVENANCE | {"model": "clay-v1.5-large"})

    with pytest.raises(MixedEmbeddings, match="under another CLAY_VERSION"):
        write_collection(*stores, version=1)


def test_version_without_files_and_foreign_names_are_refused(stores: tuple[Store, Store]) -> None:
    with pytest.raises(ValueError, match="no published file of version 9"):
        write_collection(*stores, version=9)
    with pytest.raises(ValueError, match="expected a name such as"):
        publish_item(*stores, "embeddings.parquet")


def test_file_without_provenance_or_chip_folder_gives_a_valid_item(stores: tuple[Store, Store]) -> None:
    path = Path(stores[0].uri) / NAME
    plain = pq.read_table(path).replace_schema_metadata()
    urls = pa.array(f"chip-{row}.tif" for row in range(len(plain)))
    pq.write_table(plain.set_column(0, "source_url", urls), path)

    bare = described(stores[0])

    assert faults(bare, EMBEDDINGS) == []
    assert [link["rel"] for link in bare["links"]] == ["root", "parent", "collection", "emb:model"]


def test_model_of_unknown_bands_is_described_without_them(stores: tuple[Store, Store]) -> None:
    facts = footers(find_files(Path(stores[0].uri) / NAME))[0]
    other = replace(facts, provenance=PROVENANCE | {"model": "another-net-1"}, shape=(4, 4, 64))
    interval = ["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"]
    extent = {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [interval]}}

    made = json.loads(json.dumps(model_item(other, extent)))

    assert faults(made, "mlm-v1.4.0.json") == []
    assert faults(made, "item.json") == []
    assert made["properties"]["mlm:input"] == []
    assert made["properties"]["mlm:output"][0]["result"]["shape"] == [-1, 4, 4, 64]


def test_common_folder_is_the_deepest_one() -> None:
    urls = [chip_url("27WXN", DAYS[0], 1), chip_url("27WXN", DAYS[1], 1)]
    assert common_folder(urls) == "s3://chips/27WXN/"
    assert common_folder(urls[:1]) == "s3://chips/27WXN/2020-06-15/"
    assert common_folder(["s3://a/27WXN/x.tif", "s3://a/27WXM/x.tif"]) == "s3://a/"


def test_picture_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected Markdown"):
        as_png("no picture")
