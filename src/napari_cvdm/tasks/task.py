"""The prepared frame that all tasks share, and the pixels that can be trusted.

These pixels are found before anything is computed.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from napari_cvdm.core.intensity import checkerboard_sigma, clipping_level, noise_sigma
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import RequestError
from napari_cvdm.physics.camera import CameraNoise
from napari_cvdm.tasks.deconvolved import Lens

Background = Literal["auto", "none"] | np.ndarray

BORDER_PX = 8
# Of a region: beyond it, what the networks see changes a preview by less than its noise.
SURROUNDING_PX = 96
LARGEST_SAMPLE_PX = 4_000_000


def sampled_lines(size: int, other: int) -> np.ndarray:
    """Rows (or columns) of a sample along an axis of `size` pixels.

    These are all of a small plane, else pairs (k s, k s + 1). The step s is the smallest with which
    the sample of the whole plane has at most LARGEST_SAMPLE_PX pixels.
    """
    if size * other <= LARGEST_SAMPLE_PX:
        return np.arange(size)
    # Two lines of every s, along both axes, leave 4 / s^2 of the pixels.
    step = int(np.ceil(2 * np.sqrt(size * other / LARGEST_SAMPLE_PX)))
    # Pairs, since the noise is measured on 2 x 2 patches of neighbours.
    first = np.arange(0, size - 1, step)
    return np.stack([first, first + 1], axis=1).ravel()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledPlane:
    """Evenly drawn pixels of one plane.

    Small planes give all of their pixels, so that every figure is exact then. A percentile p of a
    sample of n pixels is a percentile p +- sqrt(p (1 - p) / n) of the plane. With the 4 million of
    a large plane, this is 99.8 +- 0.002 and 1 +- 0.005.

    Parameters
    ----------
    pixels : ndarray of shape (Y', X'), float64
        On the lines of `sampled_lines`; NaN where nothing was measured.
    whole : bool
        Whether that is every pixel.
    mean : float
        Of all measured pixels that were not cut off, see `intensity.unclipped_mean`.
    """

    pixels: np.ndarray = field(repr=False)
    whole: bool
    mean: float

    def percentile(self, percent: float) -> float:
        """A percentile of what was measured of the plane, 0 to 100."""
        return float(np.percentile(self.pixels[np.isfinite(self.pixels)], percent))

    def noise_sigma(self) -> float:
        """Standard deviation of the pixel noise, as `intensity.noise_sigma` of the whole plane."""
        if self.whole:
            return noise_sigma(self.pixels)
        return checkerboard_sigma(
            self.pixels[::2, ::2],
            self.pixels[1::2, ::2],
            self.pixels[::2, 1::2],
            self.pixels[1::2, 1::2],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkInput:
    """One frame, ready for the networks.

    Parameters
    ----------
    channels : Tensor of shape (C, Y, X), float32
        The condition, of the frame and perhaps of its surroundings.
    initial_estimate : Tensor of shape (uY, uX), float32
        The physical estimate of the target, in network units.
    gain : float
        Output units for one network unit.
    valid : ndarray of shape (Y, X), bool
        False in the border band and where the camera gives no information (saturated, dark).
    estimated : mapping
        What was estimated from the frame.
    posterior : Posterior, optional
        Makes a sample of the result from one of the networks.
    origin : tuple of int
        Row and column of the first output pixel in the whole image, since noise belongs to absolute
        pixels.
    frame : tuple of slice, optional
        Rows and columns of the input that were measured; None for all.
    lens : Lens, optional
        Lens that a fluorescence image was deconvolved with.
    counts : ndarray of shape (Y, X), float64, optional
        Of a fluorescence image, above the dark level.
    noise : CameraNoise, optional
        Variance of `counts` against their level.
    region : tuple of slice, optional
        Part of the output that was asked for. The rest is surroundings that the networks need. None
        for all of the frame.
    """

    channels: Tensor = field(repr=False)
    initial_estimate: Tensor = field(repr=False)
    gain: float
    valid: np.ndarray = field(repr=False)
    estimated: Mapping[str, Any]
    posterior: "Posterior | None" = field(default=None, repr=False)
    origin: tuple[int, int] = (0, 0)
    frame: tuple[slice, slice] | None = None
    region: tuple[slice, slice] | None = None
    lens: Lens | None = None
    counts: np.ndarray | None = field(default=None, repr=False)
    noise: CameraNoise | None = None

    @property
    def upsampling(self) -> int:
        """Output pixels to one input pixel along Y and X."""
        return self.initial_estimate.shape[-1] // self.valid.shape[-1]

    @property
    def estimate(self) -> np.ndarray:
        """The physical estimate in output units, float32, of what was asked for."""
        image = self.initial_estimate.numpy() * self.gain
        return self.kept(image if self.posterior is None else self.posterior.blend(image)).astype(
            np.float32
        )

    def kept(self, image: np.ndarray) -> np.ndarray:
        """What was asked for of an output image (Y, X)."""
        if self.region is not None:
            return image[self.region]
        # A frame with surroundings has the grid of its output.
        return image if self.frame is None else image[self.frame]

    def kept_input(self, image: np.ndarray) -> np.ndarray:
        """What was asked for of an input image (Y, X)."""
        if self.region is not None:
            fine = self.upsampling  # the region is on the grid of the output
            return image[tuple(slice(one.start // fine, one.stop // fine) for one in self.region)]
        return image if self.frame is None else image[self.frame]

    def within(
        self, region: tuple[int, int, int, int], alignment: int, context_px: int = SURROUNDING_PX
    ) -> "NetworkInput":
        """The same frame for a part of it, with surroundings.

        The background, US-TIE and the intensity scale stay those of the whole image. The noise
        stays that of the absolute pixels. A run on the whole image would therefore show the same
        part, up to the effect of what lies beyond the surroundings.

        `region` is (top, bottom, left, right) in input pixels. The part starts at multiples of
        `alignment`, where the networks' own grid has its lines. They see `context_px` pixels around
        it.
        """
        # Channels begin before the frame where they hold its surroundings.
        first = (0, 0) if self.frame is None else (self.frame[0].start, self.frame[1].start)
        inside = tuple(
            (region[2 * axis] + first[axis], region[2 * axis + 1] + first[axis]) for axis in (0, 1)
        )
        rows, columns = (
            _grown(*inside[axis], self.valid.shape[axis], alignment, context_px) for axis in (0, 1)
        )
        upsampling = self.upsampling
        fine = tuple(
            slice(part.start * upsampling, part.stop * upsampling) for part in (rows, columns)
        )
        inner = tuple(
            slice((start - part.start) * upsampling, (stop - part.start) * upsampling)
            for (start, stop), part in zip(inside, (rows, columns), strict=True)
        )
        return replace(
            self,
            # Copies, since a view would keep the whole frame in memory.
            channels=self.channels[:, rows, columns].contiguous(),
            initial_estimate=self.initial_estimate[fine].contiguous(),
            valid=self.valid[rows, columns],
            counts=None if self.counts is None else self.counts[rows, columns],
            posterior=None if self.posterior is None else self.posterior.within((rows, columns)),
            origin=(self.origin[0] + fine[0].start, self.origin[1] + fine[1].start),
            frame=None,
            region=(inner[0], inner[1]),
        )


def _grown(start: int, stop: int, size: int, alignment: int, surroundings: int) -> slice:
    return slice(
        max(0, start - surroundings) // alignment * alignment, min(size, stop + surroundings)
    )


class Posterior(Protocol):
    """What is known of a frame beside what the networks draw."""

    @property
    def memory_bytes(self) -> int:
        """What it took to find it, at the peak."""

    def blend(self, image: np.ndarray) -> np.ndarray:
        """The result for an image (Y, X) of the networks, in output units; nothing is drawn."""

    def refine(self, image: np.ndarray, stream: int) -> Generator[str, None, np.ndarray]:
        """A sample of the result from one of the networks, step by step."""

    def within(self, part: tuple[slice, slice]) -> "Posterior":
        """The same for a part of the networks' grid."""


class FrameReader(Protocol):
    """Reads a frame part by part, each with the same part of a background image."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X) of the frame."""

    @property
    def frame_number(self) -> int:
        """Which one of the image."""

    def bands(self, multiple: int) -> Iterator[tuple[np.ndarray, Background]]:
        """Parts (P, rows, X) from top to bottom, `multiple` times some rows but for the last."""

    def windows(
        self, count: int
    ) -> Iterator[tuple[np.ndarray, Background, tuple[int, int], tuple[slice, slice]]]:
        """At most `count` evenly drawn windows (P, y, x).

        Each comes as pixels, background, first pixel, and the part that would be written.
        """


class GlobalStatistics(Protocol):
    """Prepares parts of one frame with what must be global known already."""

    def prepare(
        self, frame: np.ndarray, background: Background, first: tuple[int, int]
    ) -> Generator[str, None, NetworkInput]:
        """Prepare a part of shape (P, Y, X) whose first pixel is `first`, step by step.

        The background is the same part of the background image, where there is one.
        """

    @property
    def level(self) -> float:
        """Level of the output [its unit] over the whole frame."""

    def numbers(self) -> dict[str, np.ndarray]:
        """All of it, for a file; `Task.blocks` is the inverse."""


class Task(Protocol):
    """One job: what it takes, and how a frame is prepared."""

    @property
    def name(self) -> str:
        """Name in the cards."""

    @property
    def title(self) -> str:
        """What is done, in words."""

    @property
    def inputs(self) -> str:
        """What the user gives, in words."""

    @property
    def planes(self) -> int:
        """Defocus planes in one frame."""

    @property
    def upsampling(self) -> int:
        """Output pixels to one input pixel along Y and X."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Meaning of each condition channel."""

    @property
    def unit(self) -> str:
        """Unit of the output."""

    @property
    def needed_optics(self) -> tuple[str, ...]:
        """Request fields without which a frame cannot be prepared."""

    def prepare(self, frame: np.ndarray, plan: Plan) -> Generator[str, None, NetworkInput]:
        """Prepare one frame (P, Y, X) with the optics of a plan; yields what is done."""

    @property
    def context_px(self) -> int:
        """Pixels around a part that its preparation reads; the networks need their own."""

    def without(self, pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Pixels of one plane, float64, without the same part of a background image."""

    def measure_statistics(
        self, planes: Sequence[SampledPlane], plan: Plan, reader: FrameReader
    ) -> Generator[str, None, GlobalStatistics]:
        """Global quantities from a sample of each plane, step by step; never the whole frame."""

    def blocks(self, numbers: Mapping[str, np.ndarray]) -> GlobalStatistics:
        """Global statistics that were kept in a file."""


def count_from(window: tuple[slice, slice], part: tuple[slice, slice]) -> tuple[slice, slice]:
    """Rows and columns of a part, counted from a window's first; they may lie outside of it."""
    rows, columns = (
        slice(one.start - seen.start, one.stop - seen.start)
        for one, seen in zip(part, window, strict=True)
    )
    return rows, columns


def refine_mask(mask: np.ndarray, factor: int) -> np.ndarray:
    """A mask (Y, X) on a grid of `factor` times as many pixels along each axis."""
    return np.kron(mask, np.ones((factor, factor), dtype=bool))


def saturated(frame: np.ndarray) -> np.ndarray:
    """Pixels (Y, X) at which any plane (P, Y, X) of an integer camera was cut off, bool."""
    return np.any([clipped_pixels(plane) for plane in frame], axis=0)


def clipped_pixels(plane: np.ndarray) -> np.ndarray:
    """Pixels of one plane (Y, X) at which it was cut off, see `clipping_level`: bool."""
    level = clipping_level(plane)
    return np.zeros(plane.shape, bool) if level is None else np.asarray(plane >= level)


def fitting(background: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """A background image as float64.

    RequestError unless it is finite and has the shape of all planes (P, Y, X) or of one (Y, X).
    """
    if background.shape not in (planes.shape, planes.shape[1:]):
        raise RequestError(
            f"the background image has shape {background.shape}; "
            f"it must be {planes.shape[1:]}, or {planes.shape} with one per plane."
        )
    if not np.isfinite(background).all():
        raise RequestError(
            "the background image has NaN or infinite pixels; give one without, or auto."
        )
    return background.astype(np.float64)
