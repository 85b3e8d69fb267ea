"""One fluorescence image: to twice the resolution, or without its noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from napari_cvdm.intensity import BRIGHT_PERCENTILE, DARK_PERCENTILE, IntensityScale, dark_level, noise_sigma
from napari_cvdm.request import RestoreRequest
from napari_cvdm.tasks.conditioned import BORDER_PX, Background, Conditioned, FrameReader, fitting, interior, saturated
from napari_cvdm.tasks.sampled import SampledPlane


@dataclass(frozen=True, slots=True)
class Fluorescence:
    """One fluorescence image in, counts above its dark level out.

    Parameters
    ----------
    name, title, inputs, planes, upsampling, channels, unit, surroundings_px, needed_optics
        See `Task`.
    keeps_background : bool
        Whether what is smooth in the image (background, haze) belongs to the result.
    """

    name: str
    title: str
    inputs: str
    upsampling: int
    keeps_background: bool
    planes: int = 1
    channels: tuple[str, ...] = ("signal", "root of signal")
    unit: str = "counts"
    surroundings_px: int = 0
    needed_optics: tuple[str, ...] = ("pixel_um",)

    def condition(self, frame: np.ndarray, background: Background) -> Conditioned:
        """Signal above the dark level over one robust intensity of the whole image, and its square root.

        Parameters
        ----------
        frame : ndarray of shape (1, Y, X)
            Camera counts.
        background : {"auto", "none"} or ndarray of shape (Y, X)
            As in `above_dark`.

        Returns
        -------
        Conditioned
            Two channels; one network unit is `gain` counts.
        """
        counts, offset = above_dark(frame[0], background)
        offset = offset if self._takes_level(background) else 0.0
        return self.scaled(frame, counts, IntensityScale.fit(counts, offset), noise_sigma(counts))

    def _takes_level(self, background: Background) -> bool:
        """Whether the first percentile is taken off: what fills the field above a dark image belongs to a result that keeps its background."""
        return not is_none(background) and (isinstance(background, str) or not self.keeps_background)

    def scaled(self, frame: np.ndarray, counts: np.ndarray, scale: IntensityScale, noise: float) -> Conditioned:
        """`condition` with the numbers of the whole image known: local, so a part gives what the whole gives there.

        Parameters
        ----------
        frame : ndarray of shape (1, Y, X)
            As the camera gave it; tells what is saturated.
        counts : ndarray of shape (Y, X)
            Less the dark-field image, where there is one.
        scale : IntensityScale
        noise : float
            Standard deviation of the pixel noise [counts].

        Returns
        -------
        Conditioned
        """
        signal = torch.from_numpy(scale.apply(counts))
        channels = torch.stack([signal, signal.sign() * signal.abs().sqrt()])
        baseline = functional.interpolate(signal[None, None], scale_factor=self.upsampling, mode="bicubic", align_corners=False)[0, 0]
        estimated = {"dark_level": scale.offset, "intensity_scale": scale.scale, "noise_sigma": noise}
        valid = interior((signal.shape[0], signal.shape[1]), BORDER_PX) & ~saturated(frame)
        return Conditioned(channels=channels, baseline=baseline, gain=scale.scale, valid=valid, estimated=estimated)

    def without(self, pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
        """Pixels less the same part of the dark-field image."""
        return pixels - background

    def survey(self, planes: Sequence[SampledPlane], request: RestoreRequest, reader: FrameReader) -> "ScaledBlocks":
        """The numbers of a whole frame, from samples of its pixels (less the dark-field image, where there is one)."""
        request.optics_value("pixel_um")
        (plane,) = planes
        offset = plane.percentile(DARK_PERCENTILE) if self._takes_level(request.background) else 0.0
        noise = plane.noise_sigma()
        return ScaledBlocks(task=self, scale=IntensityScale.of_statistics(plane.percentile(BRIGHT_PERCENTILE), noise, offset), noise=noise)

    def blocks(self, numbers: Mapping[str, np.ndarray]) -> "ScaledBlocks":
        """A survey that was kept in a file."""
        scale = IntensityScale(offset=float(numbers["offset"]), scale=float(numbers["scale"]))
        return ScaledBlocks(task=self, scale=scale, noise=float(numbers["noise"]))

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame; only the pixel size is needed, the other optics are compared with the trained range."""
        request.optics_value("pixel_um")
        return self.condition(frame, request.background)


@dataclass(frozen=True, slots=True)
class WidefieldX2(Fluorescence):
    """Widefield fluorescence to twice the resolution on a grid twice as fine: the structure in focus."""

    name: str = "widefield-x2"
    title: str = "Super-resolution x2 from one widefield fluorescence image"
    inputs: str = "one widefield fluorescence image"
    upsampling: int = 2
    keeps_background: bool = False


@dataclass(frozen=True, slots=True)
class Denoise(Fluorescence):
    """The expectation of a noisy fluorescence image on its own grid; `Conditioned.baseline` is the image itself."""

    name: str = "denoise"
    title: str = "One fluorescence image without its noise"
    inputs: str = "one fluorescence image"
    upsampling: int = 1
    keeps_background: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledBlocks:
    """Prepares parts of one fluorescence image with the numbers of the whole.

    Parameters
    ----------
    task : Fluorescence
    scale : IntensityScale
    noise : float
        Standard deviation of the pixel noise [counts].
    """

    task: Fluorescence
    scale: IntensityScale
    noise: float

    def prepare(self, frame: np.ndarray, background: Background, first: tuple[int, int]) -> Conditioned:
        """A part of shape (1, Y, X), and the same part of the dark-field image where there is one."""
        counts, _ = above_dark(frame[0], "none" if isinstance(background, str) else background)
        prepared, finer = self.task.scaled(frame, counts, self.scale, self.noise), self.task.upsampling
        return replace(prepared, origin=(finer * first[0], finer * first[1]))

    @property
    def level(self) -> float:
        """The dark level, which is zero in the output."""
        return 0.0

    def numbers(self) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        return {name: np.asarray(value) for name, value in (("offset", self.scale.offset), ("scale", self.scale.scale), ("noise", self.noise))}


def is_none(background: Background) -> bool:
    """Whether nothing is to be taken off."""
    return isinstance(background, str) and background == "none"


def above_dark(image: np.ndarray, background: Background) -> tuple[np.ndarray, float]:
    """Counts as float64 and the level in them that is no structure.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
    background : {"auto", "none"} or ndarray of shape (Y, X)
        ``none``: the level is zero. Else it is the first percentile, of the image or of what is left above a dark image: fluorescence that fills the
        field is in every training image taken off with the camera's dark level, and with it left in, the networks do worse.

    Returns
    -------
    counts : ndarray of shape (Y, X)
        Less the dark image, where there is one.
    level : float
        Not yet subtracted.
    """
    counts = image.astype(np.float64)
    if not isinstance(background, str):
        counts = counts - fitting(background, counts[None]).reshape(counts.shape)
    return counts, 0.0 if is_none(background) else dark_level(counts)
