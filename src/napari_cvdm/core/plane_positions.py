"""Number and positions of defocused planes, and warnings about them."""

from collections.abc import Sequence
from itertools import pairwise

from napari_cvdm.core.plan import StatedOptics

STEP_TOLERANCE = 0.05


def count_planes(fewest: int, defocus_um: Sequence[float] | None) -> int:
    """Planes of one frame: as many as there are positions, if the task takes two or more.

    Parameters
    ----------
    fewest : int
        The smallest number of planes that the task takes.
    defocus_um : sequence of float, optional
    """
    return fewest if fewest == 1 else max(fewest, len(defocus_um or ()))


def position_warnings(optics: StatedOptics) -> tuple[str, ...]:
    """All sentences about the positions of the planes.

    Parameters
    ----------
    optics : StatedOptics

    Returns
    -------
    tuple of str
        Empty if nothing is wrong, or if there are no positions.
    """
    return (*one_sided_warning(optics), *z_step_warning(optics))


def one_sided_warning(optics: StatedOptics) -> tuple[str, ...]:
    """Warn if all planes lie on one side of focus."""
    positions = optics.defocus_um
    if positions is None or min(positions) <= 0 <= max(positions):
        return ()
    return (
        f"all planes lie on one side of focus: defocus_um is {_listed(positions)}. Phase and "
        "absorption cannot be told apart "
        f"well there. Take planes on both sides of focus, or one in focus.",
    )


def z_step_warning(optics: StatedOptics) -> tuple[str, ...]:
    """Warn if a z step of the file differs from a step of ``defocus_um`` by more than 5 %."""
    image, positions = optics.image, optics.defocus_um
    stated = image.place.get("z_step_um")
    if not stated or positions is None or image.taken_for_planes != "Z":
        return ()
    steps = [abs(second - first) for first, second in pairwise(positions)]
    worst = max(steps, key=lambda step: abs(step - stated))
    if abs(worst - stated) <= STEP_TOLERANCE * stated:
        return ()
    return (
        f"{image.source} states a z step of {stated:g} um, but defocus_um ({_listed(positions)}) "
        f"has a step of {worst:g} um. "
        f"defocus_um was used; correct it if the file is right.",
    )


def _listed(positions: Sequence[float]) -> str:
    return " ".join(f"{position:g}" for position in positions)
