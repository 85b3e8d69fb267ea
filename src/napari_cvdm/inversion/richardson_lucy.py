"""Richardson-Lucy, the iterative maximum likelihood of Poisson counts.

The iteration starts from the counts themselves.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

LEAST_SEEN = 1e-5  # of the light of a pixel: what the frame sees less of stays dark


class PositiveModel(Protocol):
    """A linear image formation with entries >= 0."""

    def apply(self, light: Tensor) -> Tensor:
        """A x."""

    def adjoint(self, counts: Tensor) -> Tensor:
        """A^T y."""


def deconvolve(
    counts: Tensor, model: PositiveModel, dark_counts: float, weight: Tensor | None = None
) -> Iterator[Tensor]:
    """Richardson-Lucy steps x <- x A^T(w (d + v) / (A x + v)) / A^T w.

    They follow Richardson (1972) and Lucy (1974), with v of Snyder et al., J. Opt. Soc. Am. A 10,
    1014 (1993). The start, A^T w d / A^T w, is local, so that a part of an image is deconvolved as
    it is in the whole. Read noise of variance r^2 acts like v = r^2 / slope more Poisson counts in
    data and model. The slope is the variance of a count of light.

    Parameters
    ----------
    counts : Tensor of shape (Y, X)
        d, above the dark level.
    model : PositiveModel
    dark_counts : float
        v >= 0 [counts].
    weight : Tensor of shape (Y, X), optional
        w, 0 where nothing was measured and else 1; 1 everywhere if None.

    Yields
    ------
    Tensor of the canvas' shape
        x >= 0 [counts], after each step, without end.
    """
    weight = torch.ones_like(counts) if weight is None else weight
    seen = model.adjoint(weight).clamp(min=LEAST_SEEN)
    data, smallest = (counts + dark_counts).clamp(min=0), torch.finfo(counts.dtype).tiny ** 0.5
    # Noise about zero averages out before it is cut off.
    estimate = (model.adjoint(weight * counts) / seen).clamp(min=smallest)
    while True:
        expected = (model.apply(estimate) + dark_counts).clamp(min=smallest)
        estimate = estimate * model.adjoint(weight * data / expected).clamp(min=0) / seen
        yield estimate
