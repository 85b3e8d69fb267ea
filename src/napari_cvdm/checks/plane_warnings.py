"""Warnings about differences between the planes besides focus.

Each sentence says what was corrected, what was not, and what to do.
"""

from collections.abc import Callable, Mapping, Sequence
from math import hypot
from typing import Any

from napari_cvdm.tasks.plane_checks import (
    LARGEST_LIGHT,
    LARGEST_SHIFT_PX,
    SIGNIFICANCE,
    SMALLEST_LIGHT,
    SMALLEST_SHIFT_PX,
)

OTHER_EXPOSURE = 0.2
FEW_CLIPPED = 1e-4
Found = Mapping[str, Any]
"""A `PlaneChecks` by name, as in the record of a result."""


def plane_warnings(frames: Sequence[Found]) -> tuple[str, ...]:
    """One sentence for each kind of difference between the planes.

    It describes the first frame that has the difference.

    Parameters
    ----------
    frames : sequence of mapping
        What was estimated from each frame; those without ``planes`` were not looked at.

    Returns
    -------
    tuple of str
    """
    looked = [frame["planes"] for frame in frames if "planes" in frame]
    return tuple(
        warning
        for sentence in SENTENCES
        for warning in count_frames([sentence(planes) for planes in looked])
    )


def count_frames(sentences: Sequence[str]) -> tuple[str, ...]:
    """The first sentence that is not empty, from one sentence a frame.

    With several frames, it also says how many frames have one.
    """
    said = [(number, text) for number, text in enumerate(sentences) if text]
    if not said:
        return ()
    first, text = said[0]
    return (
        text
        if len(sentences) == 1
        else f"in {len(said)} of {len(sentences)} frames, the first of them {first}: {text}",
    )


def shift_sentence(found: Found) -> str:
    """About a shift between the planes."""
    if found["shift_px"] is None:
        return ""
    down, right = found["shift_px"]
    error = found["shift_error_px"]
    lies = (
        f"the upper plane lies {down:+.2f} px down and {right:+.2f} px right of the lower "
        f"(+-{error:.2f})"
    )
    if "shift_px" in found["corrected"]:
        return f"{lies}; it was moved back."
    if hypot(down, right) > max(SIGNIFICANCE * error, SMALLEST_SHIFT_PX):
        return (
            f"{lies}, more than the {LARGEST_SHIFT_PX:g} px that are moved back; crop both planes "
            "to the same field."
        )
    return ""


def magnification_sentence(found: Found) -> str:
    """About a plane that is larger than the other."""
    if "magnification" not in found["corrected"]:
        return ""
    return (
        f"the upper plane is {found['magnification']:+.2%} larger than the lower "
        f"(+-{found['magnification_error']:.2%}); it was scaled back."
    )


def flag_sentence(found: Found) -> str:
    """About light that changed between the planes from place to place."""
    if found["light_errors"] is None:
        return ""
    terms = (*found["ramp"], *found["quadratic"])
    down, right, *bowl = terms
    changed = (
        f"the light changed between the planes by {down:+.2%} from top to bottom and {right:+.2%} "
        "from left to right"
    )
    changed += f", bowl {', '.join(f'{term:+.2%}' for term in bowl)} in y^2, x^2 and y x"
    if {"ramp", "quadratic"} & set(found["corrected"]):
        return f"{changed}; what of it is significant was divided out."
    clear = [
        abs(term)
        for term, error in zip(terms, found["light_errors"], strict=True)
        if abs(term) > max(SIGNIFICANCE * error, SMALLEST_LIGHT)
    ]
    if clear and max(clear) > LARGEST_LIGHT:
        return (
            f"{changed}, more than the {LARGEST_LIGHT:.0%} that are divided out; give a "
            "blank-field image of each plane as background."
        )
    return ""


def brightness_sentence(found: Found) -> str:
    """About planes of different exposure."""
    if abs(found["brightness"]) < OTHER_EXPOSURE and "brightness" not in found["corrected"]:
        return ""
    equalised = "; their means were made equal" if "brightness" in found["corrected"] else ""
    return (
        f"the upper plane is {found['brightness']:+.1%} brighter than the lower{equalised}. Use "
        "one exposure for both."
    )


def sign_sentence(found: Found) -> str:
    """About structures that come out thinner than what lies around them."""
    if found["sign"] >= 0:
        return ""
    return (
        f"structures come out {-found['sign_rad']:.2g} rad below what lies around them, but cells "
        "are denser than their medium: the sign of dz may be flipped. "
        f"If it is, reverse the sign of all positions in defocus_um."
    )


def clipped_sentence(found: Found) -> str:
    """About saturated planes."""
    if max(found["clipped"]) < FEW_CLIPPED:
        return ""
    shares = ", ".join(f"{share:.2%}" for share in found["clipped"])
    return (
        f"pixels are saturated ({shares} of the planes from the lowest up); the phase is uncertain "
        "there. Expose less."
    )


def same_pixels_sentence(found: Found) -> str:
    """About the same image given twice."""
    return (
        "planes have the same pixels; give images at different focus."
        if found["same_pixels"]
        else ""
    )


SENTENCES: tuple[Callable[[Found], str], ...] = (
    same_pixels_sentence,
    shift_sentence,
    magnification_sentence,
    flag_sentence,
    brightness_sentence,
    sign_sentence,
    clipped_sentence,
)
