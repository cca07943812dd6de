"""A process that is being stopped abandons requests to a store that never responds, and only these."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from clay_assets.storage import Store, TransferFailed, interruption
from clay_assets_tests.storage.misbehaving import CONTENT, LISTED, misbehaving, respond, with_keys


@pytest.fixture
def silent() -> Iterator[Store]:
    """A store whose server accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Store("s3://chips", with_keys(f"http://127.0.0.1:{listener.getsockname()[1]}"))


def while_stopping(work: Callable[[], None]) -> None:
    """Calls `work` as the main thread does to clean up after an interruption."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        work()


@contextmanager
def taking(seconds: float) -> Iterator[None]:
    """Fails if the block takes longer, with 3 s for a busy machine."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + 3


def test_an_interruption_ends_the_main_threads_request_at_once(silent: Store) -> None:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    with taking(0.5), pytest.raises(KeyboardInterrupt):
        silent.write("results", b"")


@pytest.mark.parametrize(
    "ask", [Store.list, Store.stat, lambda store: store.write("a", b""), lambda store: store.read(LISTED)]
)
def test_requests_to_a_silent_store_end_soon_after_an_interruption(
    ask: Callable[[Store], object], silent: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "GIVE_UP_S", 1.0)
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(ask, silent)

        def clean_up() -> None:
            for attempt in (lambda: ask(silent), begun.result):  # one second for all
                with pytest.raises(TransferFailed, match=r"s3://chips.*no answer for 1 s after.*Check AWS_"):
                    attempt()

        with taking(1):
            while_stopping(clean_up)


def test_requests_to_a_slow_store_continue_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GIVE_UP_S", 1.0)
    monkeypatch.setattr(interruption, "POLL_S", 0.05)

    def slow(request: BaseHTTPRequestHandler, _: int) -> None:
        time.sleep(0.4)
        respond(request, 200, CONTENT)

    def read_often(store: Store) -> None:
        for _ in range(4):
            assert store.read(LISTED) == CONTENT

    with misbehaving(slow) as endpoint:
        while_stopping(lambda: read_often(Store("s3://chips", with_keys(endpoint))))
