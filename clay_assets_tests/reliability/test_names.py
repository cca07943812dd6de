"""Unusual object names: objects are read under their exact name, and no key leaves its store."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clay_assets.storage import StorageError, Store
from clay_assets.tiles.inventory import list_chips
from clay_assets_tests.reliability.listing import listed_memory
from clay_assets_tests.reliability.tiles import TILE, put_chips, run_tiles, stores_of
from clay_assets_tests.s3_server import S3Bucket, client

NAMES = {
    "spaces": "a chip with  spaces.tif",
    "unicode": "Überfläche ☃ 地図.tif",
    "composed and decomposed": "é e\u0301.tif",
    "percent signs": "100%25 %2e%2e %zz.tif",
    "plus and question mark": "a+b?c=d&e#f.tif",
    "quotes and brackets": "'\"[]{}()<>|^`~.tif",
    "backslash": "a\\b.tif",
    "1,000 characters": "/".join("x" * 199 for _ in range(5)),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_listed_object_is_read_under_its_exact_name(name: str, bucket: S3Bucket) -> None:
    client(bucket.endpoint).put_object(Bucket=bucket.name, Key=f"prefix/{name}", Body=name.encode())
    store = bucket.store("prefix")

    (found,) = store.list()

    assert found.url == f"s3://{bucket.name}/prefix/{name}"
    assert store.read(found) == name.encode()
    assert store.stat(found).size == len(name.encode())
    store.delete(found)
    assert store.list() == []


@pytest.mark.parametrize("key", ["../other/secret", "a/../../other/secret", ".", "a/./b", "a\0b"])
def test_a_key_that_would_leave_its_store_is_refused(key: str, bucket: S3Bucket, tmp_path: Path) -> None:
    client(bucket.endpoint).put_object(Bucket=bucket.name, Key="other/secret", Body=b"secret")
    for store in (bucket.store("prefix"), Store(tmp_path)):
        for use in (store.read, store.stat, store.delete, lambda key, store=store: store.write(key, b"")):
            with pytest.raises(StorageError, match="cannot be a key"):
                use(key)
    assert bucket.store("other").read("secret") == b"secret"


@pytest.mark.parametrize("name", ["../escaped.tif", "a/../b.tif", "./c.tif"])
def test_listing_an_object_named_with_dots_is_refused(name: str, bucket: S3Bucket) -> None:
    """S3 accepts such keys, obstore cannot request them: the tile fails instead of losing the chip."""
    for key in (f"chips/27WXN/{name}", "chips/27WXN/good.tif"):
        client(bucket.endpoint).put_object(Bucket=bucket.name, Key=key, Body=b"chip")
    with pytest.raises(StorageError, match=rf"chips/27WXN/{re.escape(name)}.*Rename or delete the object"):
        bucket.store("chips").list("27WXN/")


def test_both_copies_of_a_chip_are_embedded(bucket: S3Bucket, tmp_path: Path) -> None:
    stores = stores_of(bucket, bucket.endpoint, "made")
    put_chips(stores.chips, TILE, 2)
    (first, _) = list_chips(stores.chips, TILE).chips
    stores.chips.write(f"{TILE}/2020-06-16/{Path(first.url).name}", stores.chips.read(first))

    (outcome,) = run_tiles(stores, tmp_path, TILE)

    assert outcome.results is not None
    assert outcome.results.summary.chips == 3


def test_a_listing_takes_under_1_000_bytes_per_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clay_assets_tests.reliability.listing", "--objects", "20000"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert listed_memory(done.stdout) / 20_000 < 1_000  # 400 at a million objects; 610 were seen here
