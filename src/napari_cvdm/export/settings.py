"""What is fixed in a package, because another program cannot ask for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from napari_cvdm.core.request import STEPS, ImageStack, ReconstructionRequest

SOURCE = "the package"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSettings:
    """How a packaged model samples, and the optics of the images that it will be given.

    Parameters
    ----------
    samples, steps, seed : int
        As in `ReconstructionRequest`.
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
