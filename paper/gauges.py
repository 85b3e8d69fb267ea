"""What a process holds, lap after lap, and whether it grows.

Memory, open files, threads, and what Python holds.

Resident memory comes and goes with what the C library gives back, and grows where small pieces that
live long lie between large ones that are freed. The heap in use is exact: what C, Qt and torch have
asked for and not given back. So are the blocks of Python's own allocator, which count what the
cycle collector does not list, such as text and numbers.
"""

import gc
import sys
from dataclasses import dataclass, field

import numpy as np
import psutil
from scipy.stats import theilslopes

from paper.measure import Row

KIB = 1024.0
LARGEST_LEAK_KIB = (
    20.0  # a lap; the smallest map of a lap's results has 36 KiB, so that one that is kept shows
)
WARMING_UP = 1 / 3  # of the laps: caches fill, libraries load


def open_files(process: psutil.Process) -> int:
    """File descriptors, or handles on Windows."""
    return int(process.num_fds() if hasattr(process, "num_fds") else process.num_handles())


def heap_in_use() -> int:
    """Bytes that the C library has handed out and not got back, small pieces and large ones."""
    heap = psutil.heap_info()
    return int(heap.heap_used + heap.mmap_used)


@dataclass(slots=True)
class Gauges:
    """Readings of this process after every lap."""

    memory_kib: list[float] = field(default_factory=list)
    heap_kib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    def read(self) -> None:
        """Take one reading, when what nobody needs is collected."""
        gc.collect()
        process = psutil.Process()
        self.memory_kib.append(process.memory_info().rss / KIB)
        self.heap_kib.append(heap_in_use() / KIB)
        self.files.append(open_files(process))
        self.threads.append(process.num_threads())
        self.objects.append(len(gc.get_objects()))
        self.blocks.append(sys.getallocatedblocks())

    def rows(self) -> list[Row]:
        """Slope of each by Theil and Sen, with its 95 % interval, after the warming up."""
        return [
            _row("memory [KiB]", self.memory_kib, LARGEST_LEAK_KIB),
            _row("heap in use [KiB]", self.heap_kib, None),
            _row("open files", self.files, 0.0),
            _row("threads", self.threads, 0.0),
            _row("Python objects", self.objects, None),
            _row("blocks of Python's memory", self.blocks, None),
        ]


def slope(readings: list[float] | list[int]) -> tuple[float, float, float]:
    """Rise for each lap and its 95 % interval, after the warming up; needs four laps at least."""
    kept = np.asarray(readings[int(WARMING_UP * len(readings)) :], dtype=float)
    found = theilslopes(kept)
    return float(found.slope), float(found.low_slope), float(found.high_slope)


def _row(what: str, readings: list[float] | list[int], most: float | None) -> Row:
    rise, low, high = slope(readings)
    value = f"{rise:+.2f} ({low:+.2f} to {high:+.2f})"
    where = (
        f"{what}, rise a lap; from {readings[int(WARMING_UP * len(readings))]:,.0f} to "
        f"{readings[-1]:,.0f}"
    )
    return Row(
        what=where,
        value=value,
        bar="" if most is None else f"<= {most:g}",
        met=None if most is None else rise <= most,
    )
