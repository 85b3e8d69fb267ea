"""One noisy fluorescence image, and the image of the same camera and field without noise."""

from dataclasses import dataclass
from typing import ClassVar

from napari_cvdm.simulate.widefield import (
    DrawStructure,
    Range,
    WidefieldPair,
    WidefieldRanges,
    draw_scene,
    make_pair,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingRanges(WidefieldRanges):
    """`WidefieldRanges` of oil objectives with little light.

    The offset of the cameras keeps the read noise above zero. There a mean is not biased.

    Parameters
    ----------
    na, cutoff_px, photons, offset_counts, frames : tuple
        As in `WidefieldRanges`, and so are all others.
    stretched, correlated : float
        0: noise is the camera's, in its counts.
    """

    task: ClassVar[str] = "denoise"
    na: Range = (1.1, 1.49)
    cutoff_px: Range = (2.2, 4.0)
    photons: Range = (3.0, 300.0)
    offset_counts: Range = (100.0, 400.0)
    frames: tuple[int, int] = (1, 1)
    stretched: float = 0.0
    correlated: float = 0.0

    def simulated(self, seed: int, draw: DrawStructure | None = None) -> WidefieldPair:
        """The field of a seed, see `simulate_noisy`."""
        return simulate_noisy(seed, self, draw)


def simulate_noisy(
    seed: int, ranges: WidefieldRanges, draw: DrawStructure | None = None
) -> WidefieldPair:
    """One simulated field: the image of `simulate_widefield`, and the expectation of its counts.

    Truth = E[counts] - d, where d is the dark level of the noisy image. A result differs from
    counts by this one number.

    Parameters
    ----------
    seed : int
        The pair is a pure function of the arguments.
    ranges : WidefieldRanges
    draw : callable, optional
        What is in focus; one of the structures that the ranges name unless given.

    Returns
    -------
    WidefieldPair
        With a truth on the camera's grid, which includes background and haze.
    """
    scene = draw_scene(seed, ranges, draw)
    return make_pair(scene, scene.exposed(), scene.expected)
