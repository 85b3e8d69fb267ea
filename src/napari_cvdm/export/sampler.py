"""The whole reconstruction as one network.

It takes measured images and returns the mean and the standard deviation of posterior samples. The
format needs a callable that returns a torch module. This one is imported from the installed
napari-cvdm, which the environment of the package names. It calls
`napari_cvdm.reconstruction.reconstruct`, so no second sampler
could differ from the first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.core.result import Reconstruction, finished
from napari_cvdm.export.settings import PackageSettings
from napari_cvdm.models.checkpoint import Checkpoint, card_of
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.reconstruction.reconstruct import reconstruct


class PosteriorSampler(CVDM):
    """A `CVDM` whose forward pass is the reconstruction; its weights are those of the checkpoint.

    Parameters
    ----------
    card : mapping
        `ModelCard` as plain values.
    settings : mapping
        `PackageSettings` as plain values.
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
