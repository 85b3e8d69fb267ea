"""A stretch of one axis.

This module does not import torch, so that a form can ask for the largest block without loading it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Range that one tile reads and writes along one axis, in pixels of the canvas.

    read_start <= start < stop <= read_stop.
    """

    read_start: int
    start: int
    stop: int
    read_stop: int

    def read(self, factor: int = 1) -> slice:
        """What is read, on a grid `factor` times finer."""
        return slice(self.read_start * factor, self.read_stop * factor)

    def write(self, factor: int = 1) -> slice:
        """What is written."""
        return slice(self.start * factor, self.stop * factor)

    def inner(self, factor: int = 1) -> slice:
        """What is written, within what was read."""
        return slice(
            (self.start - self.read_start) * factor, (self.stop - self.read_start) * factor
        )
