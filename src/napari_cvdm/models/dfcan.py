"""A small DFCAN, for comparison (Qiao et al., Nature Methods 18, 2021).

It consists of residual groups of Fourier channel attention. The attention uses the power spectrum
of the whole input. Unlike the networks of CVDM, its output therefore depends a little on the crop,
and tiles do not give exactly the result of the whole image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Exponent of the amplitude spectrum (the authors' gamma); with 1, low frequencies would dominate.
POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class DFCANConfig:
    """Shape of a DFCAN.

    Parameters
    ----------
    width : int
        Channels (64 in the paper).
    groups, blocks : int
        Residual groups, and attention blocks in each (4 and 4 in the paper).
    reduction : int
        Channels to one inside the attention (16 in the paper).
    """

    width: int = 32
    groups: int = 2
    blocks: int = 2
    reduction: int = 8

    @property
    def stride(self) -> int:
        """It never leaves its grid."""
        return 1

    @property
    def receptive_radius(self) -> int:
        """Of its convolutions, in folded pixels; the attention sees everything."""
        return 2 + 3 * self.groups * self.blocks


class FourierChannelAttention(nn.Module):
    """x + y a: y is two convolutions of x, and a is a factor for each channel.

    a is computed from the convolved amplitude spectrum of y.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.spectrum = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        few = max(1, width // reduction)
        self.weigh = nn.Sequential(
            nn.Conv2d(width, few, 1), nn.ReLU(), nn.Conv2d(few, width, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, Y, X) to the same shape."""
        found = self.body(features)
        with torch.autocast(features.device.type, enabled=False):
            amplitude = (
                torch.fft.fftshift(torch.fft.fft2(found.float(), norm="ortho"), dim=(-2, -1))
                .abs()
                .clamp(min=1e-8)
                ** POWER
            )
        return features + found * self.weigh(self.spectrum(amplitude))


class DFCAN(nn.Module):
    """The network, on a folded grid.

    Parameters
    ----------
    inputs, outputs : int
        Channels of the folded input and output.
    config : DFCANConfig
    """

    def __init__(self, inputs: int, outputs: int, config: DFCANConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(inputs, config.width, 3, padding=1)
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(
                    FourierChannelAttention(config.width, config.reduction)
                    for _ in range(config.blocks)
                )
            )
            for _ in range(config.groups)
        )
        self.exit = nn.Conv2d(config.width, outputs, 3, padding=1)
        # Like the other networks it starts from the physical estimate.
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)  # type: ignore[arg-type]  # a layer with a bias

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, Y, X) -> (B, outputs, Y, X)."""
        features = functional.gelu(self.entry(features))
        for group in self.groups:
            features = features + group(features)
        return self.exit(features)
