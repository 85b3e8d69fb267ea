"""Every test by its name, with what it asks and of which tasks."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.reviewer import blank
from benchmarks.reviewer.bench import Bench, Finding

WIDEFIELD, PHASE = "widefield-x2", "phase-2shot"
BOTH = (WIDEFIELD, PHASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One entry of the battery.

    Parameters
    ----------
    asks : str
        The question.
    run : callable
        Bench -> Finding.
    tasks : tuple of str
        Tasks that it applies to.
    """

    asks: str
    run: Callable[[Bench], Finding]
    tasks: tuple[str, ...] = BOTH


TESTS: dict[str, Test] = {
    "blank": Test(asks="Does an empty field stay empty?", run=blank.blank, tasks=(WIDEFIELD,)),
    "noise-only": Test(asks="Is noise drawn as structure?", run=blank.noise_only),
}
