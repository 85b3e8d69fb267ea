"""Pieces of work timed side by side, by two clocks at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Measurement, TaskSpec

ROUNDS = 5
Work = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of one piece of work.

    Parameters
    ----------
    wall, processor : Measurement
        Of torch.utils.benchmark, with median and interquartile range; processor time is the sum
        over all threads.
    """

    wall: Measurement
    processor: Measurement

    def __str__(self) -> str:
        return (
            f"{self.processor.median:.3g} s processor ({self.processor.iqr:.2g}), "
            f"{self.wall.median:.3g} s wall ({self.wall.iqr:.2g})"
        )


def by_turns(works: Sequence[Work], rounds: int = ROUNDS) -> list[Timed]:
    """Time some pieces of work, one after the other, in rounds, after one round to warm up.

    Both clocks measure each run at once.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, found in zip(works, times, strict=True):
            began, used = time.perf_counter(), time.process_time()
            work()
            found.append((time.perf_counter() - began, time.process_time() - used))
    return [
        Timed(
            **{
                name: _measurement(name, values)
                for name, values in zip(
                    ("wall", "processor"), zip(*found, strict=True), strict=True
                )
            }
        )
        for found in times
    ]


def _measurement(name: str, seconds: Sequence[float]) -> Measurement:
    return Measurement(
        number_per_run=1,
        raw_times=list(seconds),
        task_spec=TaskSpec(stmt=name, setup="", num_threads=torch.get_num_threads()),
    )
