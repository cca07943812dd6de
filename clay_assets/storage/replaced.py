"""Reading objects that another run may replace meanwhile: done again, from the start."""

from collections.abc import Callable
from typing import TypeVar

from clay_assets.storage.errors import ObjectChanged, ObjectMissing

AT_MOST = 5
"""Times that something is begun: another run replaces an object once or twice while it is read, not more."""

T = TypeVar("T")


def again_if_replaced(work: Callable[[], T]) -> T:
    """Do something that reads objects, and do it again where one was replaced under its hands.

    Raises:
        ObjectChanged, ObjectMissing: If that happens each time.
    """
    for _ in range(AT_MOST - 1):
        try:
            return work()
        except (ObjectChanged, ObjectMissing):
            continue
    return work()
