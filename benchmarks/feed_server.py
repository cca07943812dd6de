"""An HTTPS server of chips for `benchmarks.feed`, in a process of its own: S3's listing and GET, from memory.

It does only what the benchmark needs, because it shares the cores with the client. A few files serve any
number of chips, each under its own name.
"""

import argparse
import hashlib
import re
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PAGE = 1000


def main() -> None:
    """Print the port and serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the chips")
    parser.add_argument("count", type=int, help="number of chips to serve")
    parser.add_argument("certificate", type=Path, help="PEM file with the certificate and its key")
    arguments = parser.parse_args()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(arguments.folder, arguments.count)) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.daemon_threads = True
        print(server.server_port, flush=True)
        server.serve_forever()


def _handler(folder: Path, count: int) -> type[BaseHTTPRequestHandler]:
    files = sorted(folder.rglob("*.tif"))
    bodies = [(path.read_bytes(), hashlib.md5(path.read_bytes()).hexdigest()) for path in files]  # noqa: S324
    chips = {
        re.sub(r"_\d+\.tif$", f"_{number:04}.tif", str(files[0].relative_to(folder))): number % len(bodies)
        for number in range(1, count + 1)
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # header and body in as few writes as possible

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            name = address.path.lstrip("/").partition("/")[2]
            if name in chips:
                body, etag = bodies[chips[name]]
                self._send(body, etag)
            else:
                query = {key: values[0] for key, values in parse_qs(address.query).items()}
                self._send(_listing(query.get("prefix", ""), int(query.get("continuation-token", 0))), "-")

        def _send(self, body: bytes, etag: str) -> None:
            self.send_response(200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Last-Modified", "Tue, 16 Jun 2020 12:00:00 GMT")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    def _listing(prefix: str, start: int) -> bytes:
        names = sorted(name for name in chips if name.startswith(prefix))
        entries = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2020-06-16T12:00:00.000Z</LastModified>"
            f"<ETag>&quot;{bodies[chips[name]][1]}&quot;</ETag><Size>{len(bodies[chips[name]][0])}</Size></Contents>"
            for name in names[start : start + PAGE]
        )
        more = start + PAGE < len(names)
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        text = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
        return f'<?xml version="1.0"?><ListBucketResult>{text}</ListBucketResult>'.encode()

    return Handler


if __name__ == "__main__":
    main()
