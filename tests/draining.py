"""Long work, drained."""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def drained(steps: Generator[object, object, Result]) -> Result:
    """What a generator of progress returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
