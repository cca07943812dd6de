"""A proxy in front of a real S3 server that injects faults at given rates, reproducibly by a seed."""

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
"""Faults of a request.

500, 503: that status, and the request is not executed. reset: the connection is reset before a response.
lost: the same, after the server executed the request. stall: no response. cut: the body ends
before its announced length. short, long: a complete body with fewer or more bytes than the object. etag: that
of another object. expired: the token has expired. denied: access is denied. echo: the server's refusal
repeats the request's credentials.
"""

TRANSIENT: tuple[Fault, ...] = ("500", "503", "reset", "lost", "stall", "cut", "short", "long", "etag")

OF_BODIES = {"cut", "short", "long", "etag"}
"""Faults of a response's body."""

STALL = 120.0
"""Seconds after which the proxy ends a stalled connection."""

ANSWERS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
}

Decision = Callable[["Request"], Fault | None]


@dataclass(frozen=True)
class Request:
    """A request that passed the proxy.

    Attributes:
        method: HTTP method.
        path: Path with query.
        attempt: 1 for the first request of this method and path, 2 for the second.
    """

    method: str
    path: str
    attempt: int

    @property
    def operation(self) -> str:
        """The IAM permission that the request needs."""
        query = urlsplit(self.path).query
        if self.method == "GET" and "list-type=2" in query:
            return "s3:ListBucket"
        if self.method == "DELETE" and "uploadId=" in query:
            return "s3:AbortMultipartUpload"
        if self.method == "HEAD" and urlsplit(self.path).path.count("/") == 1:
            return "s3:ListBucket"
        # PutObject covers all requests of a multipart upload except the abort.
        return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "DELETE": "s3:DeleteObject"}.get(
            self.method, "s3:PutObject"
        )


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        url: URL of the proxy.
        decide: Chooses the fault of a request; may be replaced at any time.
        requests: All requests so far.
        injected: Count of each fault.
    """

    url: str
    decide: Decision = lambda _: None
    requests: list[Request] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    _attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> tuple[Request, Fault | None]:
        """Record a request and choose its fault."""
        with self._lock:
            self._attempts[method, path] += 1
            request = Request(method, path, self._attempts[method, path])
            self.requests.append(request)
        return request, self.decide(request)

    def note(self, fault: Fault) -> None:
        """Count an injected fault."""
        with self._lock:
            self.injected[fault] += 1


def at_rates(rates: Mapping[Fault, float], seed: int) -> Decision:
    """Random faults that depend on the request and its attempt, not on the order of requests.

    Args:
        rates: Share of the requests that meet each fault, 0 to 1.
        seed: Seed of the choice.
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
    """Run a proxy in front of the server at `endpoint`."""
    upstream = urlsplit(endpoint).netloc

    class Handler(_Handler):
        target = upstream

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # a client that disconnected

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
    """A client's connection, with a connection to the server."""

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
            credentials = (self.headers.get(name, "") for name in ("Authorization", "X-Amz-Security-Token"))
            self._refuse(
                403, "SignatureDoesNotMatch", f"The request signature does not match: {' '.join(credentials)}"
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
        """The content and the announced length; changes the headers."""
        if fault == "cut":
            return content[: len(content) // 2], len(content)
        if fault == "etag":
            headers["ETag"] = '"00000000000000000000000000000000"'
            return content, len(content)
        content = content[: len(content) // 2] if fault == "short" else content + b"more bytes"
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
