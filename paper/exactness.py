"""What mathematics promises, in figures: `python -m paper.exactness`."""

import math

import numpy as np
import torch

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.diffusion.process import noise_level, signal_level
from napari_cvdm.diffusion.sampler import SAMPLERS, clock_grid
from napari_cvdm.models.schedule import RATE_MAX, RATE_MIN
from napari_cvdm.physics.fresnel import fresnel_transfer, propagate
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.simulate.scenes import defocus_pair_of
from paper.measure import Row, print_rows, rmse

PIXELS, EVALUATIONS = 200_000, 20
MEAN, VARIANCE = 0.7, 0.25
LIGHT = Microscope(pixel_um=0.21, wavelength_um=0.521)


def gaussian_denoiser(noisy: torch.Tensor, neg_log_gamma: torch.Tensor) -> torch.Tensor:
    """E[y | z] for y ~ N(0.7, 0.25) at every pixel."""
    a, s = signal_level(neg_log_gamma), noise_level(neg_log_gamma)
    return (VARIANCE * a * noisy + s**2 * MEAN) / (VARIANCE * a**2 + s**2)


def sample_gaussian(name: str, evaluations: int, rate: torch.Tensor) -> torch.Tensor:
    """The last clean estimate of a sampler with its own noise at every step."""
    steps = SAMPLERS[name](
        gaussian_denoiser,
        rate,
        clock_grid(float(rate.median()), evaluations),
        lambda step: torch.randn(
            rate.shape, generator=torch.Generator().manual_seed(step), dtype=rate.dtype
        ),
    )
    return list(steps)[-1]


def observed_order(name: str) -> float:
    """log2 of the error ratio between 40 and 80 evaluations; pixel-wise rates.

    The errors are against 2000 evaluations from the same start.
    """
    rate = torch.linspace(RATE_MIN, 25, 64, dtype=torch.float64)
    exact = sample_gaussian(name, 2000, rate)
    errors = [
        float((sample_gaussian(name, count, rate) - exact).square().mean().sqrt())
        for count in (40, 80)
    ]
    return math.log2(errors[0] / errors[1])


def sampler_rows(pixels: int) -> list[Row]:
    """Mean, deviation and order."""
    rate = torch.empty(pixels, dtype=torch.float64).uniform_(
        RATE_MIN, RATE_MAX, generator=torch.Generator().manual_seed(9)
    )
    sample = sample_gaussian("sde-2m", EVALUATIONS, rate)
    mean_error, ratio = (
        abs(float(sample.mean()) - MEAN) / math.sqrt(VARIANCE),
        float(sample.std()) / math.sqrt(VARIANCE),
    )
    order = observed_order("ode-2m")
    return [
        Row(
            what=f"SDE 2M on a Gaussian, {EVALUATIONS} evaluations: error of the mean / std",
            value=f"{mean_error:.2%}",
            bar="<= 3 %",
            met=mean_error <= 0.03,
        ),
        Row(
            what="the same: std of the samples / true std",
            value=f"{ratio:.3f}",
            bar="1 +- 0.03",
            met=abs(ratio - 1) <= 0.03,
        ),
        Row(
            what="ODE 2M: observed order of convergence",
            value=f"{order:.2f}",
            bar="2",
            met=abs(order - 2) < 0.25,
        ),
    ]


def optics_rows() -> list[Row]:
    """Fresnel there and back, and US-TIE on a known phase."""
    field = torch.randn(
        (97, 130), generator=torch.Generator().manual_seed(0), dtype=torch.complex128
    )
    there = propagate(field, fresnel_transfer((97, 130), 4.0, LIGHT, field))
    back = propagate(there, fresnel_transfer((97, 130), -4.0, LIGHT, field))
    gap = float((back - field).abs().max())
    y, x = np.mgrid[-1:1:97j, -1:1:130j]
    phase = 1.1 * np.exp(-14 * (y**2 + x**2))
    light = torch.from_numpy(
        defocus_pair_of(phase, np.zeros_like(phase), LIGHT, (-1.0, 1.0))
    ).double()
    error = rmse(us_tie_of(light, (-1.0, 1.0), LIGHT, 1e-12).numpy(), phase)
    return [
        Row(
            what="Fresnel there and back, largest difference (97 x 130)",
            value=f"{gap:.1e}",
            bar="the identity",
            met=gap < 1e-12,
        ),
        Row(
            what="US-TIE of a known 1.1 rad phase: RMSE [rad]",
            value=f"{error:.4f}",
            bar="<= 0.01",
            met=error <= 0.01,
        ),
    ]


def measure(pixels: int = PIXELS) -> list[Row]:
    """All rows; means and deviations of samples are taken over so many pixels."""
    return [*sampler_rows(pixels), *optics_rows()]


if __name__ == "__main__":
    print_rows("Exactness", measure())
