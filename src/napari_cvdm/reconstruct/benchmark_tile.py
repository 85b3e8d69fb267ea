"""The networks on a tile without an image: what is timed before anything real runs."""

import torch
from torch import Tensor

from napari_cvdm.core.device import autocast
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.tiled import TiledModel

MIDDLE_EXPONENT = 5.0


class BenchmarkTile:
    """A tile of zeros on the network's device, halfway through the sampler.

    Parameters
    ----------
    network : CVDM
    shape : tuple of int
        (Y, X) on the condition's grid.
    together : int
        Samples that go through the sampler together.
    """

    @torch.inference_mode()
    def __init__(self, network: CVDM, shape: tuple[int, int], together: int = 1) -> None:
        self._network, self._tiled = network, TiledModel(network, shape, max(shape))
        condition = torch.zeros(
            1, network.config.condition_channels, *shape, device=network.residual_scale.device
        )
        self._condition = self._tiled.padded_condition(condition)
        features = network.features(self._condition, self.mean_residual("fp32"))
        rate = self._tiled.rate(features)
        self._entered = network.first_layer_features(features)
        self._exponent, self._noisy = (
            torch.full_like(rate, MIDDLE_EXPONENT),
            rate.expand(together, -1, -1, -1),
        )

    @torch.inference_mode()
    def mean_residual(self, precision: str) -> Tensor:
        """The mean network, (1, 1, uY, uX)."""
        with autocast(self._condition.device, precision):
            return self._tiled.mean_residual(self._condition)

    @torch.inference_mode()
    def rate(self, precision: str) -> Tensor:
        """All that is evaluated once for an image, mean network and rate map: (1, 1, uY, uX)."""
        return self._tiled.rate(
            self._network.features(self._condition, self.mean_residual(precision))
        )

    @torch.inference_mode()
    def step(self, precision: str) -> Tensor:
        """One evaluation of the denoiser for all samples that go together, (S, 1, uY, uX)."""
        with autocast(self._noisy.device, precision):
            return self._tiled.clean(self._noisy, self._exponent, self._entered)
