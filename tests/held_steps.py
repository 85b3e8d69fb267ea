"""Work that waits in the middle, until a test has looked."""

from collections.abc import Callable, Generator
from typing import TypeVar

from napari_cvdm.core.result import Progress

Result = TypeVar("Result")


def hold_while(
    steps: Generator[Progress, None, Result], held: Callable[[Progress], bool]
) -> Generator[Progress, None, Result]:
    """The same steps; each is repeated as long as `held` says so."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield progress
        while held(progress):
            yield progress
