"""Simulation ranges for a microscope that a user describes.

What is known is fixed, and the rest stays free.
"""

from collections.abc import Mapping

from napari_cvdm.core.microscope import check_condenser, check_optics
from napari_cvdm.core.request import RequestError
from napari_cvdm.simulate.denoising import DenoisingRanges
from napari_cvdm.simulate.phase import PhaseRanges
from napari_cvdm.simulate.widefield import WidefieldRanges

_ALL: tuple[type[PhaseRanges] | type[WidefieldRanges], ...] = (
    PhaseRanges,
    WidefieldRanges,
    DenoisingRanges,
)
RANGES = {kind.task: kind for kind in _ALL}
OPTICS = ("pixel_um", "wavelength_um", "medium_index", "na")


def described(
    task: str, known: Mapping[str, float | None], *, defocus_um: tuple[float, ...] | None = None
) -> "PhaseRanges | WidefieldRanges":
    """Ranges around one microscope.

    Parameters
    ----------
    task : str
        A name of `RANGES`.
    known : mapping of str to float or None
        Values by the names of the ranges: pixel_um, wavelength_um, medium_index, na, condenser_na,
        photons, ... None for what is not known. ``strength_rad`` is the largest strength, and
        weaker objects are drawn, too.
    defocus_um : tuple of float, optional
        Positions of two or more planes [um], in any order. With pixel, wavelength and index, the
        distance of the outermost two fixes lambda dz / (n px^2).

    Returns
    -------
    PhaseRanges or WidefieldRanges

    Raises
    ------
    RequestError, OpticsError
        Values that no microscope has; a defocus without the optics that it needs.
    """
    fixed = {name: (value, value) for name, value in known.items() if value is not None}
    check_optics(**{name: known.get(name) for name in OPTICS})
    condenser_na = known.get("condenser_na")
    if condenser_na is not None:
        check_condenser(condenser_na, known.get("medium_index"))
    values: dict[str, object] = dict(fixed)
    if "strength_rad" in fixed:
        weakest, strongest = PhaseRanges().strength_rad[0], fixed["strength_rad"][1]
        values["strength_rad"] = (min(weakest, strongest), strongest)
    if "gain_e_per_count" in fixed or "offset_counts" in fixed:
        values |= {
            "stretched": 0.0,
            "correlated": 0.0,
        }  # counts of a camera that is known are as it gives them
    if defocus_um is not None:
        fresnel = _fresnel(known, defocus_um)
        values["fresnel"] = (fresnel, fresnel)
    return RANGES[task](**values)  # type: ignore[arg-type]  # names and types are those of the ranges


def _fresnel(known: Mapping[str, float | None], defocus_um: tuple[float, ...]) -> float:
    """lambda dz / (n px^2)."""
    pixel_um, wavelength_um, index = (known.get(name) for name in OPTICS[:3])
    if pixel_um is None or wavelength_um is None or index is None:
        raise RequestError(
            "defocus_um is given; pixel_um, wavelength_um and medium_index are needed with it, "
            "or leave it empty to have it drawn."
        )
    return wavelength_um * (max(defocus_um) - min(defocus_um)) / (index * pixel_um**2)
