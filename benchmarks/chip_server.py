"""An S3 server for other benchmarks, in a process of its own: listings and chips from memory.

It does no more than they need, because it shares the cores with the client. Each tile has any number of
chips; their bodies are those of a few files.
"""

import argparse
import hashlib
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from clay_assets.tiles import TILE_CODE

PAGE = 1000
NO_BODY = b"", "0", 7_400_000  # without files: listings alone
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2020-06-16T12:00:00.000Z</LastModified>"
    "<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size></Contents>"
)


@contextmanager
def serving_chips(count: int, *options: str | Path) -> Iterator[int]:
    """Run the server with `count` chips per tile; yield its port.

    Args:
        count: Chips per tile.
        options: `--folder` and `--certificate`, as in `main`.
    """
    command = [sys.executable, "-m", "benchmarks.chip_server", str(count), *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout  # noqa: S101 - it is a pipe
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def main() -> None:
    """Print the port and serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="chips per tile")
    parser.add_argument("--folder", type=Path, help="of the chips' files, of one date")
    parser.add_argument("--certificate", type=Path, help="PEM file of certificate and key, for HTTPS")
    arguments = parser.parse_args()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(arguments.folder, arguments.count)) as server:
        if arguments.certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(arguments.certificate)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        server.daemon_threads = True
        print(server.server_port, flush=True)
        server.serve_forever()


def _handler(folder: Path | None, count: int) -> type[BaseHTTPRequestHandler]:
    files = sorted(folder.rglob("*.tif")) if folder else []
    date = files[0].parent.name if files else "2020-06-15"
    bodies = [(body := path.read_bytes(), hashlib.md5(body).hexdigest(), len(body)) for path in files]  # noqa: S324

    def chip(number: int) -> tuple[bytes, str, int]:
        return bodies[number % len(bodies)] if bodies else NO_BODY

    def listing(prefix: str, start: int) -> bytes:
        tile = prefix.strip("/").rpartition("/")[2]
        last = count if TILE_CODE.fullmatch(tile) else 0
        entries = []
        for number in range(start + 1, min(start + PAGE, last) + 1):
            key = f"{prefix}{date}/claytile_{tile}_{date.replace('-', '')}_v02_{number:04}.tif"
            entries.append(ENTRY.format(key=key, etag=chip(number)[1], size=chip(number)[2]))
        more = start + PAGE < last
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        text = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries)}"
        return (
            f'<?xml version="1.0"?><ListBucketResult xmlns="{NAMESPACE}">{text}</ListBucketResult>'.encode()
        )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # header and body in as few writes as possible

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            number = re.search(r"_v02_(\d+)\.tif$", address.path)
            if "list-type" in query:
                self._send(listing(query.get("prefix", ""), int(query.get("continuation-token", 0))))
            elif number:
                self._send(*chip(int(number[1]))[:2])
            else:
                self._send(b"", status=404)

        do_HEAD = do_GET  # noqa: N815 - the name is given

        def _send(self, body: bytes, etag: str = "-", status: int = 200) -> None:
            self.send_response(status)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Last-Modified", "Tue, 16 Jun 2020 12:00:00 GMT")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    main()
