"""Widefield fluorescence to super-resolution."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from napari_cvdm.intensity import IntensityScale, noise_sigma
from napari_cvdm.request import RestoreRequest
from napari_cvdm.tasks.conditioned import BORDER_PX, Background, Conditioned, fitting, interior, saturated

DARK_PERCENTILE = 1.0


@dataclass(frozen=True, slots=True)
class WidefieldX2:
    """Widefield fluorescence to twice the resolution on a grid twice as fine, in counts above the dark level."""

    name: str = "widefield-x2"
    title: str = "Super-resolution x2 from one widefield fluorescence image"
    inputs: str = "one widefield fluorescence image"
    planes: int = 1
    upsampling: int = 2
    channels: tuple[str, ...] = ("signal", "root of signal")
    unit: str = "counts"
    needed_optics: tuple[str, ...] = ("pixel_um",)

    def condition(self, frame: np.ndarray, background: Background) -> Conditioned:
        """Signal above the dark level over one robust intensity of the whole image, and its square root.

        Parameters
        ----------
        frame : ndarray of shape (1, Y, X)
            Camera counts.
        background : {"auto", "none"} or ndarray of shape (Y, X)
            ``auto`` takes the first percentile as dark level, ``none`` zero; an image is subtracted.

        Returns
        -------
        Conditioned
            Two channels; one network unit is `gain` counts.
        """
        counts, offset = above_dark(frame[0], background)
        scale = IntensityScale.fit(counts, offset)
        signal = torch.from_numpy(scale.apply(counts))
        channels = torch.stack([signal, signal.sign() * signal.abs().sqrt()])
        baseline = functional.interpolate(signal[None, None], scale_factor=2, mode="bicubic", align_corners=False)[0, 0]
        estimated = {"dark_level": offset, "intensity_scale": scale.scale, "noise_sigma": noise_sigma(counts)}
        valid = interior((signal.shape[0], signal.shape[1]), BORDER_PX) & ~saturated(frame)
        return Conditioned(channels=channels, baseline=baseline, gain=scale.scale, valid=valid, estimated=estimated)

    def from_request(self, frame: np.ndarray, request: RestoreRequest) -> Conditioned:
        """Prepare one frame; only the pixel size is needed, the other optics are compared with the trained range."""
        request.optics_value("pixel_um")
        return self.condition(frame, request.background)


def above_dark(image: np.ndarray, background: Background) -> tuple[np.ndarray, float]:
    """Counts as float64 and their dark level; a dark image is subtracted first."""
    counts = image.astype(np.float64)
    if not isinstance(background, str):
        return counts - fitting(background, counts[None]).reshape(counts.shape), 0.0
    return counts, float(np.percentile(counts, DARK_PERCENTILE)) if background == "auto" else 0.0
