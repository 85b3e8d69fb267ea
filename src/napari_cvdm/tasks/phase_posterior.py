"""Phase samples, from the estimate, the network and a draw of the physics' posterior.

    x = x_0 + t (D - x_0) + (J^T W J + C^-1)^-1 (J^T W^1/2 e_1 + C^-1/2 e_2)

x_0 is the estimate, D is a sample of the network, and t is the trusted share of what the network
changes. The last term is a draw of what the data leave undetermined. It includes low spatial
frequencies, which a local network cannot know. The draws of samples 2 k and 2 k + 1 are opposite,
so that the mean does not carry them. The variance of N samples is therefore too large by N / (N -
1). The share t keeps the mean of fields unlike the training as good as the estimate.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from napari_cvdm.core.result import name_stages
from napari_cvdm.inversion import Fit
from napari_cvdm.tasks.phase_inversion import WIDTH_DRAWS, draw_phases
from napari_cvdm.tasks.task import count_from

# Of what the network changes. With more, bright planes are explained worse than by noise
# (`python -m paper.sample_phases`).
TRUST = 0.03
# Of a pixel of the canvas, of all planes and of each. They were measured by adding up the tensors
# that are alive at once, and are 2 to 15 % too many.
FIT_BYTES, PLANE_BYTES = 150, 300
Drawing = Generator[str, None, np.ndarray]
"""Yields what is done before every step of a solver; returns an image, or a stack of images."""


class PosteriorDraws:
    """Draws about the estimate of one field, each solved once.

    The width of the posterior and the samples share them. `fit` has no batch dimension. `first` is
    the frame's first pixel in the whole image, since noise belongs to absolute pixels.
    """

    def __init__(self, fit: Fit, seed: int, first: tuple[int, int] = (0, 0)) -> None:
        self._fit, self._seed, self._first = fit, seed, first
        self._kept: dict[int, np.ndarray] = {}

    def draw(self, stream: int) -> Drawing:
        """Difference from the estimate [rad], (H, W); the first few and the last one are kept."""
        if stream not in self._kept:
            self._kept = {n: kept for n, kept in self._kept.items() if n < WIDTH_DRAWS}
            drawn = yield from draw_phases(self._fit, self._seed, [stream], self._first)
            self._kept[stream] = drawn[0].cpu().numpy()
        return self._kept[stream]

    def first(self) -> Drawing:
        """Those that the width is taken from: (S, H, W)."""
        return (yield from _stack_draws(self.draw, WIDTH_DRAWS, "posterior width"))


def _stack_draws(draw: Callable[[int], Drawing], count: int, stage: str) -> Drawing:
    """Draws 0, 1, ..., `count` - 1, one after the other."""
    drawn = []
    for number in range(count):
        work = name_stages(f"{stage}, draw {number + 1} of {count}", draw(number))
        drawn.append((yield from work))
    return np.stack(drawn)


class Draws(Protocol):
    """Makes draws about an estimate."""

    def draw(self, stream: int) -> Drawing:
        """Difference from the estimate [rad] on the canvas, (H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhasePosterior:
    """What a sample needs of a fit besides the network.

    Parameters
    ----------
    fit : Fit
        Without batch dimension.
    window : tuple of slice
        Rows and columns of the canvas that the network sees.
    estimate : ndarray of shape (Y, X), float32
        The estimate on the window as the network has it [rad].
    result : ndarray of shape (Y, X), float32
        The same, levelled as in the result [rad].
    background : ndarray of shape (h, w), bool, optional
        Pixels of the frame over which every sample has mean zero; samples keep their level, if
        None.
    """

    fit: Fit = field(repr=False)
    window: tuple[slice, slice]
    estimate: np.ndarray = field(repr=False)
    result: np.ndarray = field(repr=False)
    background: np.ndarray | None = field(default=None, repr=False)
    draws: Draws

    @property
    def memory_bytes(self) -> int:
        """Of the inversion at its peak: maps, waves and directions of the conjugate gradients."""
        height, width = self.fit.model.canvas_shape
        return height * width * (FIT_BYTES + PLANE_BYTES * self.fit.model.planes)

    def blend(self, image: np.ndarray) -> np.ndarray:
        """Estimate plus trusted share of the network's change (Y, X) [rad], levelled as results."""
        return (self.result + TRUST * (image - self.estimate)).astype(np.float32)

    def refine(self, image: np.ndarray, stream: int) -> Drawing:
        """A sample of the network (Y, X) [rad], made one of the result; step by step."""
        work = self._levelled_draw(stream // 2)
        drawn = yield from name_stages("drawing from the posterior", work)
        blended = self.blend(image) + (1 - 2 * (stream % 2)) * drawn[self.window]
        inner = count_from(self.window, self.fit.model.frame)
        whole = all(
            part.start >= 0 and part.stop <= size
            for part, size in zip(inner, blended.shape, strict=True)
        )
        # A part shows too little background to be levelled by it.
        if self.background is None or not whole:
            return blended
        return np.asarray(blended - blended[inner][self.background].mean())

    def draw_phases(self, count: int) -> Drawing:
        """Samples of the physics alone within the frame: (S, h, w) [rad]; step by step."""
        drawn = yield from _stack_draws(self._levelled_draw, count, "drawing from the posterior")
        frame = self.fit.model.frame
        return np.asarray(self.result[count_from(self.window, frame)] + drawn[:, *frame])

    def within(self, part: tuple[slice, slice]) -> "PhasePosterior":
        """The same for a part of the window."""
        rows, columns = (
            slice(seen.start + inner.start, seen.start + inner.stop)
            for seen, inner in zip(self.window, part, strict=True)
        )
        return replace(
            self, window=(rows, columns), estimate=self.estimate[part], result=self.result[part]
        )

    def _levelled_draw(self, stream: int) -> Drawing:
        drawn = yield from self.draws.draw(stream)
        return level_draw(drawn, self.fit.model.frame, self.background)


def level_draw(
    canvas: np.ndarray, frame: tuple[slice, slice], background: np.ndarray | None
) -> np.ndarray:
    """A draw on the canvas (H, W), with mean zero over the background."""
    return canvas if background is None else canvas - canvas[frame][background].mean()
