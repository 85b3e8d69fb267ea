"""The networks of the packages: the whole reconstruction, and the mean before sampling.

The reconstruction takes measured images and returns the mean and the standard deviation of
posterior samples. Its settings are fixed in it. The format needs a callable that returns a torch
module. This one is imported from the installed napari-cvdm, which the environment of the package
names. It calls `napari_cvdm.reconstruction.reconstruct`, so no second sampler could differ from the
first. The mean is one evaluation of each network without noise. It uses no FFT, so that it can be
exported to ONNX.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.intensity import BRIGHT_PERCENTILE, DARK_PERCENTILE, MAD_TO_SIGMA, NOISE_FLOOR
from napari_cvdm.core.request import STEPS, ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction, finished
from napari_cvdm.models.checkpoint import Checkpoint, card_of
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.reconstruction.reconstruct import reconstruct

SOURCE = "the package"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSettings:
    """How a packaged model samples, and the optics of the images that it will be given.

    Every model needs the pixel size. A phase model needs the wavelength and the index, too, and the
    signed position of each of the planes [um], two or more, that the package will take.

    Raises RequestError or OpticsError for a value that is not allowed, and says what is.
    """

    samples: int = 8
    steps: int = STEPS
    seed: int = 0
    pixel_um: float | None = None
    wavelength_um: float | None = None
    defocus_um: tuple[float, ...] | None = None
    medium_index: float | None = None
    condenser_na: float | None = None  # of the illumination of a phase image; None is coherent

    def __post_init__(self) -> None:
        self.request(np.zeros((1, 1, 1), np.float32), "")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read plain values, as the command line and YAML give them, and skip unknown names."""
        given = {entry.name: values[entry.name] for entry in fields(cls) if entry.name in values}
        if "defocus_um" in given:
            given["defocus_um"] = tuple(given["defocus_um"])
        return cls(**given)

    def given(self) -> dict[str, Any]:
        """What is set, by name: the inverse of `of`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def request(self, planes: np.ndarray, model: str, device: str = "cpu") -> ReconstructionRequest:
        """The reconstruction of one image of shape (P, Y, X) that the package makes."""
        single = len(planes) == 1
        image = ImageStack(
            array=planes[0] if single else planes, axes="YX" if single else "PYX", source=SOURCE
        )
        return ReconstructionRequest(image=image, model=model, device=device, **self.given())


class PosteriorSampler(CVDM):
    """A `CVDM` whose forward pass is the reconstruction; its weights are those of the checkpoint.

    `ModelCard` and `PackageSettings` are given as plain values.
    """

    def __init__(self, card: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        parsed = card_of(card)
        super().__init__(parsed.config())
        self.card = parsed
        self.settings = PackageSettings.of(settings)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and standard deviation, each (B, 1, uY, uX) in the model's unit.

        `images` are measured, (B, P, Y, X) [counts]. Every image is reconstructed on its own: the
        same image gives the same result in any batch.
        """
        results = [self.reconstructed(image) for image in images.cpu().numpy()]
        mean, std = (
            np.stack([getattr(result, name) for result in results])[:, None]
            for name in ("mean", "std")
        )
        return torch.from_numpy(mean).to(images.device), torch.from_numpy(std).to(images.device)

    def reconstructed(self, planes: np.ndarray) -> Reconstruction:
        """One measured image of shape (P, Y, X), reconstructed on the device of the weights."""
        request = self.settings.request(planes, self.card.name, str(self.residual_scale.device))
        return finished(reconstruct(request, Checkpoint(network=self, card=self.card, sha256="")))


class OneStep(CVDM):
    """The denoiser at t = 1, evaluated at zero, the mean of the noise.

    At t = 1 the noisy target contains only noise. The output is therefore the mean of the target
    given the condition. It has no detail of a sample and no spread.
    """

    def forward(self, condition: Tensor, initial_estimate: Tensor) -> Tensor:
        """Compute the mean (B, 1, uY, uX) in network units.

        `condition` is (B, C, Y, X) and `initial_estimate` is (B, 1, uY, uX), as `napari_cvdm.tasks`
        makes them.
        """
        mean_residual = self.mean_residual(condition)
        features = self.features(condition, mean_residual)
        neg_log_gamma = self.rate(features)  # n = lambda T with T(1) = 1
        clean = self.clean(
            torch.zeros_like(neg_log_gamma), neg_log_gamma, self.first_layer_features(features)
        )
        return self.decode(clean, initial_estimate, mean_residual, self.residual_std(features))


class OneStepFromCounts(OneStep):
    """The same for fluorescence, from camera counts to counts.

    It does the scaling of `tasks.widefield` with operations that ONNX has.
    """

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # counts alone are enough here
        """Camera counts (B, 1, Y, X) -> mean in counts above the dark level, (B, 1, uY, uX)."""
        pixels = image.flatten(1).sort(dim=1).values
        dark = percentile(pixels, DARK_PERCENTILE)
        scale = torch.maximum(
            percentile(pixels, BRIGHT_PERCENTILE) - dark, NOISE_FLOOR * noise_deviation(image)
        )
        # A blank image has neither signal nor noise to divide by.
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None, None, None]
        signal = (image - dark[:, None, None, None]) / scale
        condition = torch.cat([signal, signal.sign() * signal.abs().sqrt()], dim=1)
        estimate = functional.interpolate(
            signal, scale_factor=self.config.upsampling, mode="bicubic", align_corners=False
        )
        return scale * super().forward(condition, estimate)


def percentile(ordered: Tensor, percent: float) -> Tensor:
    """`numpy.percentile` of ascending values (B, N), as (B,).

    It computes in whole thousandths, so that N may be a dynamic size.
    """
    place = (ordered.shape[1] - 1) * round(10 * percent)
    low, share = place // 1000, (place % 1000) / 1000
    return torch.lerp(ordered[:, low], ordered[:, low + 1], share)


def noise_deviation(image: Tensor) -> Tensor:
    """`intensity.noise_sigma` of images (B, 1, Y, X): (B,)."""
    # What is smooth cancels, and the noise of four values adds up to twice that of one.
    checker = image[..., :-1, :-1] - image[..., 1:, :-1] - image[..., :-1, 1:] + image[..., 1:, 1:]
    return MAD_TO_SIGMA / 2 * _grouped_median(checker.abs().flatten(1).sort(dim=1).values)


def _grouped_median(ordered: Tensor) -> Tensor:
    # intensity.grouped_median of rising values (B, N), without a search: ONNX has none.
    size = ordered.shape[1]
    lower, upper = (ordered[:, index] for index in ((size - 1) // 2, size // 2))
    below, equal = (ordered < lower[:, None]).sum(1), (ordered == lower[:, None]).sum(1)
    gaps = ordered[:, 1:] - ordered[:, :-1]
    step = torch.where(gaps > 0, gaps, torch.full_like(gaps, torch.inf)).amin(1)
    low, high = (lower - step / 2).clamp(min=0), lower + step / 2
    spread = low + (high - low) * (size - 2 * below) / (2 * equal)
    return torch.where((equal == 1) | step.isinf(), (lower + upper) / 2, spread)
