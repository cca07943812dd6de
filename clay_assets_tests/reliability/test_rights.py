"""The IAM policies of SECURITY.md allow the requests of runs, and nothing more."""

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from clay_assets.state.states import TileStores
from clay_assets.storage import Store
from clay_assets_tests.geotiffs import chip_bytes, chip_name
from clay_assets_tests.reliability.proxy import proxying
from clay_assets_tests.reliability.tiles import TILE, put_chips, run_tiles
from clay_assets_tests.s3_server import S3Bucket, client

SECURITY = Path(__file__).parents[2] / "SECURITY.md"


def policies() -> dict[str, set[str]]:
    """Actions that the policies of SECURITY.md allow, by bucket."""
    found: dict[str, set[str]] = {}
    for text in re.findall(r"```json\n(.*?)```", SECURITY.read_text(), re.DOTALL):
        for statement in json.loads(text)["Statement"]:
            actions = statement["Action"]
            bucket = statement["Resource"].removeprefix("arn:aws:s3:::").partition("/")[0]
            found.setdefault(bucket, set()).update([actions] if isinstance(actions, str) else actions)
    return found


def test_runs_need_exactly_what_the_policies_allow(bucket: S3Bucket, tmp_path: Path) -> None:
    names = {role: f"{bucket.name}-{role.lower()}"[-63:] for role in ("CHIPS", "WORK", "OUTPUT")}
    for name in names.values():
        client(bucket.endpoint).create_bucket(Bucket=name)
    put_chips(S3Bucket(bucket.endpoint, names["CHIPS"]).store(), TILE, 40)
    with proxying(bucket.endpoint) as proxy:
        options = replace(bucket.options, endpoint_url=proxy.url)
        stac = Store(f"s3://{names['OUTPUT']}/stac", options)
        chips, work, output = (Store(f"s3://{name}", options) for name in names.values())
        stores = TileStores(chips, work, output, stac)
        proxy.decide = lambda request: "denied" if "_0030.tif" in request.path else None
        run_tiles(stores, tmp_path, TILE)
        proxy.decide = lambda request: "cut" if "_0041.tif" in request.path else None
        put_chips(S3Bucket(bucket.endpoint, names["CHIPS"]).store(), TILE, 2, first=41)
        run_tiles(stores, tmp_path, TILE)  # fails, and stores the finished chips
        proxy.decide = lambda _: None
        run_tiles(stores, tmp_path, TILE)
        # A later date makes a file of another name and removes the earlier one.
        later = Store(f"s3://{names['CHIPS']}/", bucket.options)
        later.write(
            f"{TILE}/2020-06-16/{chip_name(1, tile=TILE, date='2020-06-16')}", chip_bytes(date="2020-06-16")
        )
        (outcome,) = run_tiles(stores, tmp_path, TILE)
    assert outcome.error is None

    requested: dict[str, set[str]] = defaultdict(set)
    for request in proxy.requests:
        (role,) = [role for role, name in names.items() if request.path.startswith(f"/{name}")]
        requested[role].add(request.operation)
    allowed = policies()
    assert set(allowed) == set(requested)
    for role, operations in requested.items():
        assert operations <= allowed[role], role
        # Only larger tiles abort a broken upload in parts and delete pieces of results.
        of_larger_tiles = {"s3:AbortMultipartUpload", *(["s3:DeleteObject"] if role == "WORK" else [])}
        assert allowed[role] - operations <= of_larger_tiles, role
