"""The whole reconstruction as one network, and the settings that are fixed in it.

It takes measured images and returns the mean and the standard deviation of posterior samples. The
format needs a callable that returns a torch module. This one is imported from the installed
napari-cvdm, which the environment of the package names. It calls
`napari_cvdm.reconstruction.reconstruct`, so no second sampler could differ from the first.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from napari_cvdm.core.request import STEPS, ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction, finished
from napari_cvdm.models.checkpoint import Checkpoint, card_of
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.reconstruction.reconstruct import reconstruct

SOURCE = "the package"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSettings:
    """How a packaged model samples, and the optics of the images that it will be given.

    Parameters
    ----------
    pixel_um, wavelength_um, medium_index : float, optional
        Optics; every model needs the pixel size, a phase model all of them.
    defocus_um : tuple of float, optional
        Signed position of each plane [um], two or more, phase models only. The package takes as
        many planes.
    condenser_na : float, optional
        Numerical aperture of the illumination, phase models only; coherent light, if None.

    Raises
    ------
    RequestError, OpticsError
        A value that is not allowed, with what is.
    """

    samples: int = 8
    steps: int = STEPS
    seed: int = 0
    pixel_um: float | None = None
    wavelength_um: float | None = None
    defocus_um: tuple[float, ...] | None = None
    medium_index: float | None = None
    condenser_na: float | None = None

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
