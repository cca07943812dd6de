"""HTTP servers on loopback whose answers a test chooses."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clay_assets.storage import (
    S3Options,
    StoredObject,
)

CONTENT = bytes(range(256)) * 4096  # 1 MiB
ETAG = "0123456789abcdef0123456789abcdef"
LISTED = StoredObject("s3://chips/a.tif", len(CONTENT), ETAG)


@contextmanager
def misbehaving(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[str]:
    """Serves HTTP on loopback; calls `answer` with each request and its number, from 1."""
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal count
            count += 1
            answer(self, count)

        do_PUT = do_HEAD = do_GET  # noqa: N815 - the standard library's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def respond(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    send: int | None = None,
) -> None:
    """Announces a body, or the requested range, and closes the connection after `send` bytes.

    Args:
        request: The request to respond to.
        status: Replaced by 206 if a range is requested.
        body: The whole object.
        send: Bytes to send; None: all of them.
    """
    if status == 200 and (requested := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))):
        start, end = int(requested[1]), int(requested[2]) + 1
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
        body = body[start:end]
    else:
        request.send_response(status)
    request.send_header("ETag", f'"{ETAG}"')
    request.send_header("Last-Modified", "Tue, 16 Jun 2020 12:00:00 GMT")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body[:send])
    request.close_connection = send is not None


def with_keys(endpoint: str, max_attempts: int = 5) -> S3Options:
    """Options with keys, for a server of this file."""
    return S3Options(
        endpoint_url=endpoint,
        max_attempts=max_attempts,
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - any value works
    )
