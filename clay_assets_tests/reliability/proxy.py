"""A proxy before a real S3 server that breaks some of what passes, at stated rates and by a seed.

Belongs here: real sockets on loopback, what may go wrong on them, and a record of what passed. Does not
belong here: what must come of it (the tests).
"""

import hashlib
import http.client
import random
import re
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal[
    "500", "503", "reset", "lost", "stall", "cut", "short", "long", "etag", "expired", "denied", "echo"
]
"""What may go wrong with a request.

500, 503: the server says so, before it did anything. reset: the connection ends instead of an answer. lost:
likewise, but the request was carried out. stall: nothing more comes. cut: the answer ends before its
announced end. short, long: it announces less or more than the object has, and holds that. etag: of another
object. expired: the token is. denied: access is. echo: the server repeats the request's credentials in its
refusal.
"""

TRANSIENT: tuple[Fault, ...] = ("500", "503", "reset", "lost", "stall", "cut", "short", "long", "etag")

OF_BODIES = {"cut", "short", "long", "etag"}
"""Faults of an object's content."""

STALL = 120.0
"""Seconds after which a stalled connection ends, if the client did not end it before."""

ANSWERS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
}

Decision = Callable[["Request"], Fault | None]


@dataclass(frozen=True)
class Request:
    """A request as the proxy saw it.

    Attributes:
        method: of HTTP.
        path: with its query.
        attempt: how often the same was asked, from 1.
    """

    method: str
    path: str
    attempt: int

    @property
    def operation(self) -> str:
        """The S3 permission that it takes, as IAM names it."""
        query = urlsplit(self.path).query
        if self.method == "GET" and "list-type=2" in query:
            return "s3:ListBucket"
        if self.method == "DELETE" and "uploadId=" in query:
            return "s3:AbortMultipartUpload"
        if self.method == "HEAD" and urlsplit(self.path).path.count("/") == 1:
            return "s3:ListBucket"
        # A multipart upload, in all of its requests but the abort, is covered by PutObject.
        return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject"}.get(
            self.method, "s3:PutObject"
        )


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        url: Of it.
        decide: What goes wrong with a request; may be replaced at any time.
        requests: All that passed.
        injected: How often what went wrong.
    """

    url: str
    decide: Decision = lambda _: None
    requests: list[Request] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    _attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> tuple[Request, Fault | None]:
        """Note a request and decide on it."""
        with self._lock:
            self._attempts[method, path] += 1
            request = Request(method, path, self._attempts[method, path])
            self.requests.append(request)
        return request, self.decide(request)

    def note(self, fault: Fault) -> None:
        """Count a fault."""
        with self._lock:
            self.injected[fault] += 1


def at_rates(rates: Mapping[Fault, float], seed: int) -> Decision:
    """Faults at random: the same for the same attempt of the same request, in whatever order they come.

    Args:
        rates: How many requests meet each, 0 to 1.
        seed: Of the choice.
    """

    def decide(request: Request) -> Fault | None:
        text = f"{seed} {request.method} {request.path} {request.attempt}"
        chance = random.Random(hashlib.sha256(text.encode()).digest()).random()  # noqa: S311 - no secret
        for fault, rate in rates.items():
            if chance < rate:
                return fault
            chance -= rate
        return None

    return decide


@contextmanager
def proxying(endpoint: str) -> Iterator[Proxy]:
    """Runs a proxy before the server at `endpoint` for the length of the block."""
    upstream = urlsplit(endpoint).netloc

    class Handler(_Handler):
        target = upstream

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # a client that went away

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
        Handler.proxy = proxy
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One client's connection, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy
    target: str

    def setup(self) -> None:
        super().setup()
        self._server = http.client.HTTPConnection(self.target)

    def finish(self) -> None:
        self._server.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, fault = self.proxy.take(self.command, self.path)
        if fault in OF_BODIES and (self.command != "GET" or ("list-type=2" in self.path and fault != "cut")):
            fault = None
        if fault is not None:
            self.proxy.note(fault)
        if fault == "stall":
            self._wait_for_the_client_to_leave()
        elif fault == "reset":
            self._reset()
        elif fault == "echo":
            told = (self.headers.get(name, "") for name in ("Authorization", "X-Amz-Security-Token"))
            self._refuse(
                403, "SignatureDoesNotMatch", f"The request signature does not match: {' '.join(told)}"
            )
        elif fault in ANSWERS:
            self._refuse(*ANSWERS[fault])
        else:
            self._forward(body, fault)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the standard library's names

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        self._server.request(self.command, self.path, body or None, dict(self.headers))
        answer = self._server.getresponse()
        content = answer.read()
        if fault == "lost":
            self._reset()
            return
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "content-length")
        }
        length = int(answer.headers.get("Content-Length", len(content)))
        if answer.status < 300 and fault in OF_BODIES:
            content, length = self._broken(headers, content, fault)
        self.send_response_only(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = len(content) != length and self.command != "HEAD"

    @staticmethod
    def _broken(headers: dict[str, str], content: bytes, fault: Fault) -> tuple[bytes, int]:
        """The content and the length that is announced; changes the headers."""
        if fault == "cut":
            return content[: len(content) // 2], len(content)
        if fault == "etag":
            headers["ETag"] = '"00000000000000000000000000000000"'
            return content, len(content)
        content = content[: len(content) // 2] if fault == "short" else content + b"more than there is"
        if found := re.fullmatch(r"bytes (\d+)-\d+/\d+", headers.get("Content-Range", "")):
            start = int(found[1])
            headers["Content-Range"] = f"bytes {start}-{start + len(content) - 1}/{start + len(content)}"
        return content, len(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _wait_for_the_client_to_leave(self) -> None:
        select.select([self.connection], [], [], STALL)
        self.close_connection = True
