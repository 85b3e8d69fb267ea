"""From photons to camera counts."""

import torch
from torch import Tensor

from napari_cvdm.core.microscope import Camera


def expose(photons: Tensor, camera: Camera, generator: torch.Generator) -> Tensor:
    """One noisy exposure, clipped to the bit depth.

    The counts are round((Poisson(QE N) + read noise) / gain + offset), with N photons.

    Parameters
    ----------
    photons : Tensor of shape (..., Y, X), real, >= 0
        Expected photons in each pixel.
    camera : Camera
    generator : torch.Generator
        On the device of `photons`.

    Returns
    -------
    Tensor of shape (..., Y, X)
        Counts (ADU).
    """
    electrons = torch.poisson(photons.clamp(min=0) * camera.quantum_efficiency, generator=generator)
    electrons = electrons + camera.read_noise_e * torch.randn(
        photons.shape, generator=generator, dtype=photons.dtype, device=photons.device
    )
    counts = electrons / camera.gain_e_per_count + camera.offset_counts
    return counts if camera.bit_depth is None else counts.round().clamp(0, 2**camera.bit_depth - 1)
