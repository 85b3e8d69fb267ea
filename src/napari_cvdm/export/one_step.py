"""One evaluation of each network without noise: the mean that the model expects before sampling.

It uses no FFT, so that it can be exported to ONNX.
"""

import torch
from torch import Tensor
from torch.nn import functional

from napari_cvdm.core.intensity import BRIGHT_PERCENTILE, DARK_PERCENTILE, MAD_TO_SIGMA, NOISE_FLOOR
from napari_cvdm.models.cvdm import CVDM


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
