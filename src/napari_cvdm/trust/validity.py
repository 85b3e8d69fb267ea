"""Where, and whether, a model is used outside what it was trained for: said in words and in a mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_cvdm.model.checkpoint import ModelCard
from napari_cvdm.request import OPTICS, ImageStack, RestoreRequest
from napari_cvdm.trust.plane_checks import one_sided_warning

TOLERANCE = 1.02
FAR = 10.0
MUCH_CROSSES = 0.7  # of `crossing_share`: half the contrast's power of the field is in the band along the frame, too
MEANING = {"fresnel": "defocus_um over the pixel (wavelength_um * distance / (medium_index * pixel_um^2))"}
AXES_THAT_ARE_NO_FOCUS = {"T": "time points", "C": "channels"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beyond:
    """Pixels beyond the trained range of the output, and the reason in words ("" when there are none)."""

    mask: np.ndarray = field(repr=False)
    reason: str


def optics_values(request: RestoreRequest) -> dict[str, float]:
    """The optics of a request that are known, and the Fresnel parameter lambda |dz| / (n px^2) when it follows from them."""
    known = {name: request.known_optics(name) for name in OPTICS}
    values = {name: value for name, value in known.items() if value is not None}
    if request.defocus_um is not None and {"pixel_um", "wavelength_um", "medium_index"} <= set(values):
        distance = abs(request.defocus_um[1] - request.defocus_um[0])
        values["fresnel"] = values["wavelength_um"] * distance / (values["medium_index"] * values["pixel_um"] ** 2)
    return values


def optics_warnings(request: RestoreRequest, card: ModelCard) -> tuple[str, ...]:
    """One sentence for every optics value outside the card's trained range, and for planes on one side of focus.

    Parameters
    ----------
    request : RestoreRequest
    card : ModelCard

    Returns
    -------
    tuple of str
    """
    warnings = []
    for name, value in optics_values(request).items():
        low, high = card.optics.get(name, (-np.inf, np.inf))
        if not low / TOLERANCE <= value <= high * TOLERANCE:
            meaning = MEANING.get(name, name)
            warnings.append(f"{meaning} is {value:.4g}, outside the {low:g} to {high:g} that {card.name} was trained for; do not quantify this result.")
    return (*warnings, *one_sided_warning(request))


def field_text(shape: tuple[int, ...], pixel_um: float) -> str:
    """Size of the field in the sample, which everybody knows of their microscope: a forgotten binning makes it half or twice as wide.

    Parameters
    ----------
    shape : tuple of int
        (..., Y, X) of the image.
    pixel_um : float
    """
    height, width = shape[-2:]
    return f"the field is {width * pixel_um:.4g} x {height * pixel_um:.4g} um ({width} x {height} px of {pixel_um:g} um)"


def crossing_warnings(estimated: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One sentence where much of the objects of a phase crosses the frame.

    Parameters
    ----------
    estimated : sequence of mapping
        What was estimated from each frame; those without ``crossing_share`` are not of a phase.
    """
    crossed = sum(frame.get("crossing_share", 0.0) > MUCH_CROSSES for frame in estimated)
    if not crossed:
        return ()
    where = "" if len(estimated) == 1 else f" in {crossed} of {len(estimated)} frames"
    return (f"objects reach the edge of the image{where}: slow waves of the phase are uncertain, which the spread allows for. Leave empty medium around them.",)


def far_from_training(request: RestoreRequest, card: ModelCard) -> bool:
    """Whether an optics value is more than ten times outside its trained range, so that no pixel can be trusted."""
    ranges = {name: card.optics.get(name, (-np.inf, np.inf)) for name in optics_values(request)}
    return any(not ranges[name][0] / FAR <= value <= ranges[name][1] * FAR for name, value in optics_values(request).items())


def axes_warnings(image: ImageStack) -> tuple[str, ...]:
    """One sentence where time points or channels were taken for the two planes of focus."""
    if image.taken_for_planes not in AXES_THAT_ARE_NO_FOCUS:
        return ()
    name = AXES_THAT_ARE_NO_FOCUS[image.taken_for_planes]
    return (f"{image.source}: its two {name} (axis {image.taken_for_planes}) were taken for the two planes of focus; give two files if they are not.",)


def beyond_trained_range(mean: np.ndarray, card: ModelCard, level: float | None = None) -> Beyond:
    """Pixels whose phase is farther from the field's median than the model was trained for.

    Parameters
    ----------
    mean : ndarray of shape (..., Y, X)
    card : ModelCard
    level : float, optional
        The field's median, where `mean` is a part of it.

    Returns
    -------
    Beyond
        All False for models without such a limit.
    """
    strength = card.training.get("simulation", {}).get("strength_rad") if card.unit == "rad" else None
    if strength is None:
        return Beyond(mask=np.zeros(mean.shape, dtype=bool), reason="")
    mask = np.abs(mean - (np.median(mean, axis=(-2, -1), keepdims=True) if level is None else level)) > strength[1]
    return Beyond(mask=mask, reason=beyond_warning(float(mask.mean()), card) if mask.any() else "")


def beyond_warning(share: float, card: ModelCard) -> str:
    """One sentence on a share of pixels that is beyond the trained range."""
    most = card.training["simulation"]["strength_rad"][1]
    return f"phase beyond the trained {most:g} rad in {share:.1%} of the pixels; they are marked invalid."
