"""Gives up requests to a store that stays silent while the process is being stopped.

SIGINT and SIGTERM raise an exception in the main thread (`KeyboardInterrupt`, or Dagster's
`DagsterExecutionInterruptedError`). Python runs no signal handler while the main thread is inside obstore,
and cleaning up waits for other threads' requests. So requests run in daemon threads, and their callers wait.
"""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

GIVE_UP_S = 20.0
"""Seconds without an answer from the store, after the interruption, until its requests are given up. A store
that answers is not cut off: finished chips are stored and tiles published."""

POLL_S = 0.5

T = TypeVar("T")


class Waiting:
    """Waits for the requests to one store."""

    def __init__(self) -> None:
        self.answered()

    def answered(self) -> None:
        """Record that the store sent or accepted data just now."""
        self._answered = time.monotonic()

    def call(self, request: Callable[[], T]) -> T:
        """Call `request`; an interruption of the main thread ends the wait.

        Raises:
            TimeoutError: If the store was silent for `GIVE_UP_S` after an interruption.
            Exception: What `request` raises.
        """
        if threading.current_thread().daemon:  # neither a pool nor the end of the process waits for it
            return request()
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(request())
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=run, name="request", daemon=True).start()
        while not wait([outcome], POLL_S).done:
            began = _interrupted_at()
            if began is not None and time.monotonic() - max(began, self._answered) > GIVE_UP_S:
                raise TimeoutError(f"no answer for {GIVE_UP_S:g} s after the run was stopped")
        self.answered()
        return outcome.result()


def _interrupted_at() -> float | None:
    """Return when the main thread was first seen handling an interruption; None if it handles none."""
    handled = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error: BaseException | None = handled[1] if isinstance(handled, tuple) else handled  # a tuple until 3.11
    while error is not None:
        if not isinstance(error, (Exception, GeneratorExit)):
            noticed: float = vars(error).setdefault("_noticed_by_storage", time.monotonic())
            return noticed
        error = error.__context__
    return None
