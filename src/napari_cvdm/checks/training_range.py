"""Warnings and a mask for optics and pixels outside the training range of a model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_cvdm.core.plan import StatedOptics, one_sided_warning
from napari_cvdm.core.request import OPTICS, ImageStack
from napari_cvdm.models.checkpoint import ModelCard

TOLERANCE = 1.02
FAR = 10.0
MEANING = {
    "cutoff_px": (
        "the period of the cut-off frequency in pixels (wavelength_um / (2 * na * pixel_um))"
    ),
    "fresnel": "defocus_um over the pixel (wavelength_um * distance / (medium_index * pixel_um^2))",
}
AXES_THAT_ARE_NO_FOCUS = {"T": "time points", "C": "channels"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutOfRange:
    """Pixels outside the training range of the output, and the reason ("" if there are none)."""

    mask: np.ndarray = field(repr=False)
    reason: str


def optics_values(optics: StatedOptics) -> dict[str, float]:
    """The known optics.

    They include the Fresnel parameter lambda |dz| / (n px^2) and the cut-off period, where these
    follow.
    """
    values = {name: value for name in OPTICS if (value := getattr(optics, name)) is not None}
    if optics.defocus_um is not None and {"pixel_um", "wavelength_um", "medium_index"} <= {*values}:
        distance = max(optics.defocus_um) - min(optics.defocus_um)
        values["fresnel"] = (
            values["wavelength_um"] * distance / (values["medium_index"] * values["pixel_um"] ** 2)
        )
    # A measured PSF has its own cut-off, whatever the stated NA.
    if optics.psf is None and {"pixel_um", "wavelength_um", "na"} <= {*values}:
        values["cutoff_px"] = values["wavelength_um"] / (2 * values["na"] * values["pixel_um"])
    return values


def optics_warnings(optics: StatedOptics, card: ModelCard) -> tuple[str, ...]:
    """One sentence for every optics value outside the training range of the card.

    Planes that all lie on one side of focus have a sentence, too.
    """
    values = optics_values(optics)
    beyond = [name for name in values if is_outside(card, name, values[name])]
    return (*(outside(card, name, values[name]) for name in beyond), *one_sided_warning(optics))


def is_outside(card: ModelCard, name: str, value: float, tolerance: float = TOLERANCE) -> bool:
    """Whether an optics value is outside the card's trained range, by more than a factor."""
    low, high = card.optics.get(name, (-np.inf, np.inf))
    return not low / tolerance <= value <= high * tolerance


def outside(card: ModelCard, name: str, value: float) -> str:
    """The sentence that says it."""
    low, high = card.optics[name]
    return (
        f"{MEANING.get(name, name)} is {value:.3g}, outside the {low:g} to {high:g} that "
        f"{card.name} was trained for; do not quantify this result."
    )


def lens_warnings(estimated: Iterable[Mapping[str, Any]], card: ModelCard) -> tuple[str, ...]:
    """One sentence where measured or estimated lenses are outside the training range.

    `estimated` holds what was estimated from each frame.
    """
    cutoffs_px = [
        frame["cutoff_px"] for frame in estimated if frame.get("optics", "stated") != "stated"
    ]
    beyond = [value for value in cutoffs_px if is_outside(card, "cutoff_px", value)]
    return (outside(card, "cutoff_px", beyond[0]),) if beyond else ()


def field_text(shape: tuple[int, ...], pixel_um: float) -> str:
    """Size of the field in the sample, of an image of shape (..., Y, X).

    Users know this size of their microscope. A forgotten binning makes it half or twice as wide.
    """
    height, width = shape[-2:]
    # Three digits, and no powers of ten: 1330, not 1.33e+03.
    sides = (f"{float(f'{side * pixel_um:.3g}'):g}" for side in (width, height))
    return f"the field is {' x '.join(sides)} um ({width} x {height} px of {pixel_um:.3g} um)"


def far_from_training(optics: StatedOptics, card: ModelCard) -> bool:
    """Whether an optics value is more than ten times outside its training range.

    Then no pixel can be trusted.
    """
    return any(is_outside(card, name, value, FAR) for name, value in optics_values(optics).items())


def axes_warnings(image: ImageStack) -> tuple[str, ...]:
    """One sentence where time points or channels were taken for planes of focus."""
    if image.taken_for_planes not in AXES_THAT_ARE_NO_FOCUS:
        return ()
    name = AXES_THAT_ARE_NO_FOCUS[image.taken_for_planes]
    return (
        f"{image.source}: its {image.planes} {name} (axis {image.taken_for_planes}) were taken for "
        "planes of focus; give one file for each plane if they are not.",
    )


def beyond_trained_range(
    mean: np.ndarray, card: ModelCard, level: float | None = None
) -> OutOfRange:
    """Pixels whose phase is farther from the field's median than the model was trained for.

    All are False for models without such a limit. `mean` has the shape (..., Y, X). `level` is the
    field's median, where `mean` is a part of it.
    """
    simulation = card.training.get("simulation", {}) if card.unit == "rad" else {}
    if (strength := simulation.get("strength_rad")) is None:
        return OutOfRange(mask=np.zeros(mean.shape, dtype=bool), reason="")
    middle = np.median(mean, axis=(-2, -1), keepdims=True) if level is None else level
    mask = np.abs(mean - middle) > strength[1]
    reason = beyond_warning(float(mask.mean()), card) if mask.any() else ""
    return OutOfRange(mask=mask, reason=reason)


def beyond_warning(share: float, card: ModelCard) -> str:
    """One sentence on a share of pixels that is outside the training range."""
    most = card.training["simulation"]["strength_rad"][1]
    return (
        f"phase beyond the trained {most:g} rad in {share:.1%} of the pixels; they are marked "
        "invalid."
    )
