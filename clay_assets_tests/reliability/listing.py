"""Measures a long listing: `python -m clay_assets_tests.reliability.listing --objects 1000000`.

A server on loopback generates the names; the memory and time of listing them are printed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from clay_assets.storage import S3Options, Store
from clay_assets.tiles.inventory import list_chips
from clay_assets_tests.geotiffs import chip_name
from clay_assets_tests.storage.misbehaving import misbehaving, respond

TILE = "27WXN"
PAGE = 1000


@contextmanager
def serving_names(count: int) -> Iterator[str]:
    """Serve S3's ListObjectsV2 of `count` chips of one tile, 1,000 per page; yields the server's URL."""

    def answer(request: BaseHTTPRequestHandler, _: int) -> None:
        query = parse_qs(urlsplit(request.path).query)
        start = int(query.get("continuation-token", ["0"])[0])
        end = min(count, start + PAGE)
        items = "".join(
            f"<Contents><Key>chips/{TILE}/2020-06-15/{chip_name(number, tile=TILE)}</Key>"
            "<Size>13000000</Size>"
            f'<LastModified>2020-06-16T12:00:00.000Z</LastModified><ETag>"{number:032x}"</ETag></Contents>'
            for number in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < count else ""
        truncated = f"<IsTruncated>{'true' if end < count else 'false'}</IsTruncated>"
        body = f"<ListBucketResult>{truncated}{more}{items}</ListBucketResult>".encode()
        respond(request, 200, body)

    with misbehaving(answer) as url:
        yield url


def listed_memory(output: str) -> int:
    """Bytes of memory that a listing took, from the output of `main`."""
    return int(json.loads(output)["bytes"])


def _memory() -> int:
    """Peak memory of this process in bytes, on Linux."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """List the given number of objects; prints the memory and time that it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--objects", type=int, default=1_000_000)
    objects = parser.parse_args(arguments).objects
    options = S3Options(aws_access_key_id="key", aws_secret_access_key="secret")  # noqa: S106 - any value works
    with serving_names(10) as endpoint:
        _list(endpoint, options)  # connect once
    before = _memory()
    with serving_names(objects) as endpoint:
        started = time.monotonic()
        found = _list(endpoint, options)
        seconds = time.monotonic() - started
    print(json.dumps({"objects": found, "bytes": _memory() - before, "seconds": round(seconds, 1)}))
    return found != objects


def _list(endpoint: str, options: S3Options) -> int:
    store = Store("s3://bucket/chips", replace(options, endpoint_url=endpoint))
    return len(list_chips(store, TILE).chips)


if __name__ == "__main__":
    sys.exit(main())
