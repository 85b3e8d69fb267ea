"""One fluorescence image: to twice the resolution, or without its noise."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch.nn import functional

from napari_cvdm.core.intensity import (
    BRIGHT_PERCENTILE,
    DARK_PERCENTILE,
    IntensityScale,
    dark_level,
    fill_unmeasured,
    measured_pixels,
    noise_sigma,
)
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import finished
from napari_cvdm.core.statistics import interior
from napari_cvdm.physics.camera import CameraNoise, photon_transfer
from napari_cvdm.tasks.deconvolved import (
    DECONVOLVED_CHANNELS,
    Deconvolution,
    Lens,
    deconvolve_channels,
    estimate_lens,
    find_lens,
)
from napari_cvdm.tasks.task import (
    BORDER_PX,
    SURROUNDING_PX,
    Background,
    FrameReader,
    NetworkInput,
    SampledPlane,
    fitting,
    saturated,
)

SURVEYED_WINDOWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameNumbers:
    """What is measured once on a whole frame.

    Parameters
    ----------
    noise : float
        Standard deviation of the pixel noise [counts].
    camera : CameraNoise
        Variance against level.
    lens : Lens, optional
        Where the task deconvolves.
    """

    scale: IntensityScale
    noise: float
    camera: CameraNoise
    lens: Lens | None = None


@dataclass(frozen=True, slots=True)
class Fluorescence:
    """One fluorescence image in, counts above its dark level out; for the fields see `Task`."""

    name: str
    title: str
    inputs: str
    upsampling: int
    planes: int = 1
    channels: tuple[str, ...] = ("signal", "root of signal")
    unit: str = "counts"
    context_px: int = 0
    needed_optics: tuple[str, ...] = ("pixel_um",)

    @property
    def fine_channels(self) -> int:
        """Of the channels, the last so many are fine pixels: upsampling^2 to each fine image."""
        return 0

    def condition(
        self, frame: np.ndarray, background: Background, lens: Lens | None = None
    ) -> NetworkInput:
        """Signal above the dark level over one robust intensity of the whole image.

        The result also holds what a task makes of this signal; one network unit is `gain` counts.
        `frame` (1, Y, X) has camera counts. `background` is as in `above_dark`. The lens is
        estimated from the image where it is needed and not given.
        """
        return finished(self.scaled(frame, *self._measure(frame, background, lens)))

    def _measure(
        self, frame: np.ndarray, background: Background, lens: Lens | None
    ) -> tuple[np.ndarray, FrameNumbers]:
        """Counts above the dark image, NaN where not measured, and the numbers of the frame."""
        seen = np.where(measured_pixels(frame[0]), frame[0], np.nan)
        counts, level = above_dark(seen, background)
        return counts, FrameNumbers(
            scale=IntensityScale.fit(counts, level),
            noise=noise_sigma(counts),
            camera=measure_camera(frame, counts, level),
            lens=lens,
        )

    def scaled(
        self,
        frame: np.ndarray,
        counts: np.ndarray,
        numbers: FrameNumbers,
        region: tuple[int, int, int, int] | None = None,
    ) -> Generator[str, None, NetworkInput]:
        """`condition` with the numbers of the whole image known, step by step.

        It is local, so a part gives what the whole gives there. `frame` (1, Y, X) is as the camera
        gave it, and tells what is saturated. `counts` (Y, X) are less the dark-field image, where
        there is one. Of the result, only `region` (top, bottom, left, right) and its surroundings
        will be used.
        """
        yield "intensity scale"
        return self._scale(frame, counts, numbers)

    def _scale(self, frame: np.ndarray, counts: np.ndarray, numbers: FrameNumbers) -> NetworkInput:
        scale, usable = numbers.scale, ~saturated(frame)
        unmeasured = ~np.isfinite(counts)
        counts = fill_unmeasured(counts)
        if unmeasured.any():
            # Filled pixels spoil what is computed beside them, as the border does.
            usable &= ~binary_dilation(unmeasured, iterations=BORDER_PX)
        signal = torch.from_numpy(scale.apply(counts))
        # The estimate of a task that deconvolves nothing.
        baseline = functional.interpolate(
            signal[None, None], scale_factor=self.upsampling, mode="bicubic", align_corners=False
        )[0, 0]
        estimated = {
            "dark_level": scale.offset,
            "intensity_scale": scale.scale,
            "noise_sigma": numbers.noise,
            "unmeasured_share": float(unmeasured.mean()),
        }
        return NetworkInput(
            # A root makes photon noise about equal at every brightness.
            channels=torch.stack([signal, signal.sign() * signal.abs().sqrt()]),
            initial_estimate=baseline,
            gain=scale.scale,
            valid=interior((signal.shape[0], signal.shape[1]), BORDER_PX) & usable,
            estimated=estimated,
            counts=counts - scale.offset,
            noise=numbers.camera,
        )

    def without(self, pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Pixels less the same part of the dark-field image."""
        return pixels - background

    def measure_statistics(
        self, planes: Sequence[SampledPlane], plan: Plan, reader: FrameReader
    ) -> Generator[str, None, "ScaledBlocks"]:
        """The numbers of a whole frame, from samples of its pixels.

        The dark-field image is subtracted first where there is one.
        """
        (plane,) = planes
        yield "intensity scale"
        level = plane.percentile(DARK_PERCENTILE) if takes_level(plan.background) else 0.0
        noise = plane.noise_sigma()
        scale = IntensityScale.of_statistics(plane.percentile(BRIGHT_PERCENTILE), noise, level)
        cameras, parts = [], []
        for pixels, part, *_ in reader.windows(SURVEYED_WINDOWS):
            counts, _ = above_dark(pixels[0], "none" if isinstance(part, str) else part)
            cameras.append(measure_camera(pixels, counts, level))
            parts.append(fill_unmeasured(above_dark(pixels[0], "none")[0]))
        # The median: a single window may be empty, or all bright.
        camera = CameraNoise(
            gain=float(np.median([camera.gain for camera in cameras])),
            read_variance=float(np.median([camera.read_variance for camera in cameras])),
        )
        lens = self.lens_of(plan) or self.estimated_lens(parts)
        numbers = FrameNumbers(scale=scale, noise=noise, camera=camera, lens=lens)
        return ScaledBlocks(task=self, frame_numbers=numbers)

    def blocks(self, numbers: Mapping[str, np.ndarray]) -> "ScaledBlocks":
        """Global statistics that were kept in a file."""

        def pick(*names: str) -> dict[str, float]:
            return {name: float(numbers[name]) for name in names}

        lens = None
        if "psf" in numbers:
            source = str(numbers["lens_source"])
            lens = Lens(psf=numbers["psf"], source=source, **pick("cutoff_px"))
        scale = IntensityScale(**pick("offset", "scale"))
        camera = CameraNoise(**pick("gain", "read_variance"))
        known = FrameNumbers(scale=scale, camera=camera, lens=lens, **pick("noise"))
        return ScaledBlocks(task=self, frame_numbers=known)

    def lens_of(self, plan: Plan) -> Lens | None:
        """The lens that a plan describes; None where it does not, or where none is needed."""
        return None

    def estimated_lens(self, parts: Sequence[np.ndarray]) -> Lens | None:
        """The lens by parts (Y, X) of an image; None where none is needed."""
        return None

    def prepare(self, frame: np.ndarray, plan: Plan) -> Generator[str, None, NetworkInput]:
        """Prepare one frame, step by step."""
        counts, numbers = self._measure(frame, plan.background, self.lens_of(plan))
        return (yield from self.scaled(frame, counts, numbers, plan.region))


@dataclass(frozen=True, slots=True)
class WidefieldX2(Fluorescence):
    """Widefield fluorescence to twice the resolution on a grid twice as fine.

    The result has all of the light, including haze and background. The image is first deconvolved
    by Richardson-Lucy of three strengths, with the PSF of its own microscope. This brings the
    optics into the network's input.
    """

    name: str = "widefield-x2"
    title: str = "Super-resolution x2 from one widefield fluorescence image"
    inputs: str = "one widefield fluorescence image"
    upsampling: int = 2
    channels: tuple[str, ...] = (
        "signal",
        "root of signal",
        "noise",
        "misfit of the deconvolution",
        "cut-off period",
        *DECONVOLVED_CHANNELS,
    )
    context_px: int = 64

    @property
    def fine_channels(self) -> int:
        """The deconvolved images."""
        return len(DECONVOLVED_CHANNELS)

    def lens_of(self, plan: Plan) -> Lens | None:
        """From NA, wavelength and index, or from a measured PSF."""
        return find_lens(plan, self.upsampling)

    def estimated_lens(self, parts: Sequence[np.ndarray]) -> Lens | None:
        """Of the median cut-off period of the parts that show one."""
        return estimate_lens(parts, self.upsampling)

    def scaled(
        self,
        frame: np.ndarray,
        counts: np.ndarray,
        numbers: FrameNumbers,
        region: tuple[int, int, int, int] | None = None,
    ) -> Generator[str, None, NetworkInput]:
        """The deconvolution of `BASELINE_STRENGTH` is the initial estimate.

        Where there is a region, nothing is deconvolved far from it, and zero is there.
        """
        plain, scale = self._scale(frame, counts, numbers), numbers.scale
        yield "cut-off frequency"
        # Of the whole image, so that a region has the lens of the whole.
        lens = numbers.lens or estimate_lens([fill_unmeasured(counts)], self.upsampling)
        part = self._deconvolved_part(region, counts)
        problem = Deconvolution.of_frame(
            (counts - scale.offset)[part], lens, numbers.camera, scale.scale, self.upsampling
        )
        local, estimate = yield from deconvolve_channels(problem, scale.scale, lens.cutoff_px)
        # As large as the image, so that `within` cuts the region out as usual.
        channels = local.new_zeros((len(local), *counts.shape))
        channels[:, *part] = local
        finer, baseline = self.upsampling, torch.zeros_like(plain.initial_estimate)
        baseline[tuple(slice(finer * one.start, finer * one.stop) for one in part)] = estimate
        return replace(
            plain,
            channels=torch.cat([plain.channels, channels]),
            initial_estimate=baseline,
            estimated={**plain.estimated, "cutoff_px": lens.cutoff_px, "optics": lens.source},
            lens=lens,
        )

    def _deconvolved_part(
        self, region: tuple[int, int, int, int] | None, counts: np.ndarray
    ) -> tuple[slice, slice]:
        """Rows and columns that determine the networks' input in a region; all without one."""
        (height, width), around = counts.shape, SURROUNDING_PX + self.context_px
        top, bottom, left, right = region or (0, height, 0, width)
        rows = slice(max(0, top - around), min(height, bottom + around))
        return rows, slice(max(0, left - around), min(width, right + around))


@dataclass(frozen=True, slots=True)
class Denoise(Fluorescence):
    """The expectation of a noisy fluorescence image on its own grid.

    `NetworkInput.initial_estimate` is the image itself.
    """

    name: str = "denoise"
    title: str = "One fluorescence image without its noise"
    inputs: str = "one fluorescence image"
    upsampling: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledBlocks:
    """Prepares parts of one fluorescence image with the numbers of the whole."""

    task: Fluorescence
    frame_numbers: FrameNumbers

    def prepare(
        self, frame: np.ndarray, background: Background, first: tuple[int, int]
    ) -> Generator[str, None, NetworkInput]:
        """Prepare a part (1, Y, X), with the same part of a dark-field image, step by step."""
        counts, _ = above_dark(frame[0], "none" if isinstance(background, str) else background)
        prepared = yield from self.task.scaled(frame, counts, self.frame_numbers)
        finer = self.task.upsampling
        # Noise belongs to absolute pixels of the output.
        return replace(prepared, origin=(finer * first[0], finer * first[1]))

    @property
    def level(self) -> float:
        """The dark level, which is zero in the output."""
        return 0.0

    def numbers(self) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        known, lens = self.frame_numbers, self.frame_numbers.lens
        values = {**asdict(known.scale), "noise": known.noise, **asdict(known.camera)}
        if lens is not None:
            values |= {"psf": lens.psf, "cutoff_px": lens.cutoff_px, "lens_source": lens.source}
        return {name: np.asarray(value) for name, value in values.items()}


def measure_camera(frame: np.ndarray, counts: np.ndarray, level: float) -> CameraNoise:
    """Noise of a frame (1, Y, X) from its counts (Y, X), NaN where nothing was measured.

    `level` is the dark level that is still in the counts.
    """
    # Cut-off pixels are bright without noise, which would bend the line.
    usable = ~saturated(frame) & np.isfinite(counts)
    return photon_transfer(fill_unmeasured(counts) - level, usable)


def takes_level(background: Background) -> bool:
    """Whether the first percentile is subtracted.

    With a measured dark image, the light above it that fills the field belongs to the result.
    """
    return isinstance(background, str) and background != "none"


def above_dark(image: np.ndarray, background: Background) -> tuple[np.ndarray, float]:
    """Counts (Y, X) as float64 and the level in them that counts as the camera's.

    The counts are those above the dark image, where `background` is one, and NaN where nothing was
    measured. With ``auto`` the level is the first percentile, as the camera's own is not known, and
    else zero. It is not yet subtracted.
    """
    counts = np.where(np.isfinite(image), image, np.nan).astype(np.float64)
    if not isinstance(background, str):
        # The dark image holds the camera's own offset, so no level is left.
        counts = counts - fitting(background, counts[None]).reshape(counts.shape)
    return counts, dark_level(counts) if takes_level(background) else 0.0
