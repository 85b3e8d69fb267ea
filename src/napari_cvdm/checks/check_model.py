"""A reconstruction imaged again: the predicted camera image, and its residual."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar
from torch import Tensor

from napari_cvdm.physics.camera import CameraNoise
from napari_cvdm.physics.forward_model import PhaseObject
from napari_cvdm.physics.fresnel import circular_pupil
from napari_cvdm.physics.widefield import bin_pixels, blur, gaussian_transfer, optical_transfer
from napari_cvdm.tasks.deconvolved import Lens

MARGIN_PX = 20  # of the camera, mirrored around the field: transforms are periodic, samples are not
SMOOTHING_PX = 2.0  # the variance of a pixel must not follow its own noise
MIDDLE_PX = 256  # of the camera: large enough to fit one width
BLUR_TOLERANCE = 0.05  # px^2 of the fine grid
Found = TypeVar("Found")
Fitted = float | PhaseObject
"""What is fitted of the sample beside the reconstruction.

It is the variance of a blur, or absorption and light beside a phase.
"""
# In pixels of the camera. It is about the width of a point, and wide enough that noise alone stays
# within 1 +- 0.13.
LOCAL_PX = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What was measured against what the reconstruction predicts.

    Parameters
    ----------
    residual : ndarray of shape (Y, X) or (P, Y, X), float32
        (measured - predicted) / sigma, signed.
    predicted : ndarray of the same shape
        In units of the measured image.
    gain : float
        By which the reconstruction had to be multiplied: 1 when its flux is right.
    fitted : float or PhaseObject
        What was fitted of the sample: the variance of its blur, in squared pixels of the fine grid;
        or the change of absorption, illumination and surroundings of a phase object.
    counted : ndarray of the same shape, bool, optional
        Values that were measured; all, if None.
    freedom : float
        Degrees of freedom of one measured value. It is below 1 where the compared image was fitted
        to the same noise.
    """

    residual: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    gain: float
    fitted: Fitted = field(default=0.0, repr=False)
    counted: np.ndarray | None = field(default=None, repr=False)
    freedom: float = 1.0

    def chi2(self, valid: np.ndarray) -> float:
        """Reduced chi-squared over the valid pixels (Y, X); about 1 for the truth."""
        squares, count = self._sums(valid)
        return float(squares.sum(dtype=np.float64) / max(1, count.sum()) / self.freedom)

    def local_chi2(self, valid: np.ndarray) -> np.ndarray:
        """Local chi-squared (Y, X), float32: chi2(x) = G(s) / G(n), 0 where no pixel counts.

        s is the sum of r^2 over n counted planes, G a Gaussian of `LOCAL_PX`. It shows where
        the reconstruction and the measured image differ. For unit normals in P planes it is 1 with
        standard deviation 1 / (LOCAL_PX sqrt(2 pi P)).
        """
        squares, count = self._sums(valid)
        weighted = count * (squares / np.maximum(count, 1))
        local, total = (
            gaussian_filter(image, LOCAL_PX, truncate=3.0) for image in (weighted, count)
        )
        local = local / np.maximum(total, np.finfo(count.dtype).tiny) / self.freedom
        return np.where(count > 0, local, 0).astype(np.float32)

    def _sums(self, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the squared residual over the planes that count, and their number, each (Y, X)."""
        squares = np.zeros(valid.shape, self.residual.dtype)
        count = np.zeros(valid.shape, np.float32)
        planes = self.residual.reshape(-1, *valid.shape)
        counted = [valid] * len(planes) if self.counted is None else self.counted & valid
        for plane, where in zip(planes, counted, strict=True):
            squares += np.square(np.where(where, plane, 0))
            count += where
        return squares, count


def in_steps(made: Found | Generator[str, None, Found]) -> Generator[str, None, Found]:
    """What was made at once, or what a generator of the steps of a solver returns."""
    return (yield from made) if isinstance(made, Generator) else made


class ForwardCheckModel(Protocol):
    """How an image came about."""

    @property
    def measured(self) -> np.ndarray:
        """What the camera measured, (Y, X) or (P, Y, X)."""

    @property
    def valid(self) -> np.ndarray:
        """Pixels of the camera that count, bool (Y, X)."""

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""

    @property
    def most_fitted(self) -> float:
        """Largest share of the degrees of freedom that a reconstruction can fit; 0 if not known."""

    def compare(
        self, image: np.ndarray, fitted: Fitted | None = None
    ) -> Comparison | Generator[str, None, Comparison]:
        """Image a reconstruction of shape (uY, uX) again, and compare it.

        `fitted` is what an earlier comparison fitted of the sample. A model that solves for it is
        a generator, which yields before each step of the solver.
        """


def sharp_to_seen(
    shape: tuple[int, int], psf: Tensor, period_px: float, own_sigma_px: float
) -> Tensor:
    """OTF exp(2 pi^2 s^2 f^2) below the cut-off 1 / period, shape (Y, X).

    This transfer function takes a reconstruction of own blur s to the image that the objective
    forms. It is nowhere above 1, since an image never has more contrast than its object.
    """
    otf = optical_transfer(psf, shape)
    # The Gaussian underflows at high frequencies, where the OTF is zero, too.
    own = gaussian_transfer(shape, own_sigma_px, otf.real).clamp(min=1e-6)
    ratio = otf / own * circular_pupil(shape, 1.0, 1 / period_px, otf)
    return ratio / ratio.abs().clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CountsCheckModel:
    """Counts above the dark level (Y, X), of which nothing is known but their noise."""

    measured: np.ndarray = field(repr=False)
    noise: CameraNoise
    valid: np.ndarray = field(repr=False)

    @property
    def noisy(self) -> bool:
        """Whether there is noise to compare with."""
        return not self.noise.none

    @property
    def most_fitted(self) -> float:
        """Not known; the camera has many more pixels than a reconstruction has details."""
        return 0.0

    def variance(self) -> np.ndarray:
        """Variance of the noise of each pixel, (Y, X)."""
        return self.noise.variance(gaussian_filter(self.measured, SMOOTHING_PX))


def fit_gain(seen: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> float:
    """By what least squares would multiply one image to get another; 0 for an empty image."""
    size = float((weight * seen**2).sum())
    return float((weight * seen * wanted).sum()) / size if size > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WidefieldCheckModel(CountsCheckModel):
    """A widefield image of a sharp one: y = D (h * x) + noise, with D the binning.

    The width of h is fitted within the training range of the model.

    Parameters
    ----------
    lens : Lens
        Its PSF is on the grid of the reconstruction.
    own_sigma_px : float
        Standard deviation of the reconstruction's own point spread, in pixels of the fine grid.
    extra_sigma_px : float
        Largest blur by the sample, in camera pixels.
    """

    lens: Lens
    upsampling: int = 2
    own_sigma_px: float = 0.0
    extra_sigma_px: float = 0.0

    def compare(self, image: np.ndarray, fitted: Fitted | None = None) -> Comparison:
        """Image a reconstruction (uY, uX) in counts again; without `fitted`, use the best blur.

        The gain is that of least squares; nothing is multiplied by it.
        """
        extra = float(fitted) if isinstance(fitted, float) else self.best_blur(image)
        seen, variance = self.seen(image, extra), self.variance()
        return Comparison(
            residual=((self.measured - seen) / np.sqrt(variance)).astype(np.float32),
            predicted=seen,
            gain=fit_gain(seen, self.measured, self.valid / variance),
            fitted=extra,
        )

    def seen(self, image: np.ndarray, extra: float) -> np.ndarray:
        """D (h * x), shape (Y, X).

        It is the image (uY, uX) through the objective and a Gaussian of variance `extra` [px^2],
        binned to the camera.
        """
        psf, period_px = torch.from_numpy(self.lens.psf), self.upsampling * self.lens.cutoff_px

        def apply_block(block: Tensor) -> Tensor:
            shape = (block.shape[0], block.shape[1])
            transfer = sharp_to_seen(shape, psf.to(block.dtype), period_px, self.own_sigma_px)
            transfer = transfer * gaussian_transfer(shape, extra**0.5, block)
            # Counts are those of a camera pixel: the mean of its fine pixels.
            binned = bin_pixels(blur(block, transfer), self.upsampling)
            return binned[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] / self.upsampling**2

        return by_blocks(apply_block, image, MARGIN_PX * self.upsampling)

    def best_blur(self, image: np.ndarray) -> float:
        """Variance of the extra blur [px^2] of least chi-squared, from the middle of the field."""
        times = self.upsampling
        widest = (self.extra_sigma_px * times) ** 2
        coarse = middle_slices(self.measured.shape, MIDDLE_PX)
        middle = replace(self, measured=self.measured[coarse], valid=self.valid[coarse])
        # Without a pixel that counts every width costs the same.
        if widest == 0 or not middle.valid.any():
            return 0.0
        inner = image[tuple(slice(part.start * times, part.stop * times) for part in coarse)]

        def cost(extra: float) -> float:
            return middle.compare(inner, float(extra)).chi2(middle.valid)

        found = minimize_scalar(
            cost, bounds=(0, widest), method="bounded", options={"xatol": BLUR_TOLERANCE}
        )
        return float(found.x)


def middle_slices(shape: tuple[int, ...], largest: int) -> tuple[slice, ...]:
    """The middle of an image, at most `largest` pixels along each axis."""
    starts = [max(0, (size - largest) // 2) for size in shape]
    return tuple(slice(start, start + largest) for start in starts)


BLOCK_PX = 1024


def by_blocks(function: Callable[[Tensor], Tensor], image: np.ndarray, margin: int) -> np.ndarray:
    """Apply a local function to images (..., Y, X), block by block: (..., y, x), float64.

    So a large image needs no transform of its own size. The function takes a block with its margin
    [px] (mirrored at the image's border), float32, and returns what is inside the margin.
    """
    around = [(0, 0)] * (image.ndim - 2) + [(margin, margin)] * 2
    padded = torch.from_numpy(np.pad(np.asarray(image, dtype=np.float32), around, mode="symmetric"))
    rows, columns = (
        [(start, min(start + BLOCK_PX, size)) for start in range(0, size, BLOCK_PX)]
        for size in image.shape[-2:]
    )
    blocks = [
        [
            function(padded[..., top : bottom + 2 * margin, left : right + 2 * margin])
            for left, right in columns
        ]
        for top, bottom in rows
    ]
    return torch.cat([torch.cat(row, dim=-1) for row in blocks], dim=-2).double().numpy()


class SameGridCheckModel(CountsCheckModel):
    """A noisy image of a noiseless one on the same grid: y = a x + d + noise.

    The whole image has one gain a and one level d. No optics are needed. A reconstruction that
    keeps the noise has a chi-squared near 0, where the truth has 1.
    """

    def compare(self, image: np.ndarray, fitted: Fitted | None = None) -> Comparison:
        """Compare an image (Y, X) in counts, with the gain and level of weighted least squares.

        Nothing of the sample is fitted.
        """
        variance = self.variance()
        weight = self.valid / variance
        seen, wanted = (
            values - np.average(values, weights=weight)
            for values in (image.astype(np.float64), self.measured)
        )
        gain = fit_gain(seen, wanted, weight)
        # The level d is the weighted mean of what was measured.
        predicted = self.measured - wanted + gain * seen
        return Comparison(
            residual=((self.measured - predicted) / np.sqrt(variance)).astype(np.float32),
            predicted=predicted,
            gain=gain,
        )
