"""Several scenes beside the untouched one."""

from collections.abc import Mapping

from paper.reviewer.bench import Bench, Case, Finding
from paper.reviewer.figures import drawn
from paper.reviewer.measures import case_row
from paper.reviewer.scene import Scene


def compared(
    bench: Bench, title: str, scenes: Mapping[str, Scene], untouched: Case | None = None
) -> Finding:
    """Reconstruct every scene and set it beside the untouched image.

    Parameters
    ----------
    bench : Bench
    title : str
        Of the figure.
    scenes : mapping of str to Scene
        By name of the case.
    untouched : Case, optional
        What to compare with; the bench's own by default.

    Returns
    -------
    Finding
        A row for each case, the untouched one first.
    """
    base = untouched or bench.untouched
    cases = [base, *(bench.case(name, scene) for name, scene in scenes.items())]
    found = [case_row(case, base) for case in cases]
    ratios = {
        f"{title}: {case.name}": pair for case, (_, pair) in zip(cases[1:], found[1:], strict=True)
    }
    return Finding(
        rows=[row for row, _ in found], figure=drawn(title, cases), cases=cases, ratios=ratios
    )
