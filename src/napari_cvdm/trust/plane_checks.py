"""What was found between two planes besides the focus, in words: what was put right, what was not, and what to do."""

from collections.abc import Callable, Mapping, Sequence
from math import hypot
from typing import Any

from napari_cvdm.request import RestoreRequest
from napari_cvdm.tasks.plane_checks import LARGEST_LIGHT, LARGEST_SHIFT_PX, SIGNIFICANCE, SMALLEST_LIGHT, SMALLEST_SHIFT_PX

OTHER_EXPOSURE = 0.2
FEW_CLIPPED = 1e-4
Found = Mapping[str, Any]
"""A `PlaneChecks` by name, as in the record of a result."""


def plane_warnings(frames: Sequence[Found]) -> tuple[str, ...]:
    """One sentence for each kind of difference between the planes that was found, about the first frame that has it.

    Parameters
    ----------
    frames : sequence of mapping
        What was estimated from each frame; those without ``planes`` were not looked at.

    Returns
    -------
    tuple of str
    """
    looked = [frame["planes"] for frame in frames if "planes" in frame]
    warnings = []
    for sentence in SENTENCES:
        said = [(number, text) for number, planes in enumerate(looked) if (text := sentence(planes))]
        if said:
            first, text = said[0]
            warnings.append(text if len(looked) == 1 else f"in {len(said)} of {len(looked)} frames, the first of them {first}: {text}")
    return tuple(warnings)


def one_sided_warning(request: RestoreRequest) -> tuple[str, ...]:
    """One sentence where both planes are on the same side of focus."""
    positions = request.defocus_um
    if positions is None or min(positions) <= 0 <= max(positions):
        return ()
    return (
        f"defocus_um is {positions[0]:g} and {positions[1]:g}, both on the same side of focus: phase and absorption cannot be told apart well there, "
        f"and no model was trained for it. Take one plane on each side, or one in focus.",
    )


def shift_sentence(found: Found) -> str:
    """About a shift between the planes."""
    if found["shift_px"] is None:
        return ""
    down, right = found["shift_px"]
    error = found["shift_error_px"]
    lies = f"the upper plane lies {down:+.2f} px down and {right:+.2f} px right of the lower (+-{error:.2f})"
    if "shift_px" in found["corrected"]:
        return f"{lies}; it was moved back."
    if hypot(down, right) > max(SIGNIFICANCE * error, SMALLEST_SHIFT_PX):
        return f"{lies}, more than the {LARGEST_SHIFT_PX:g} px that are moved back; crop both planes to the same field."
    return ""


def magnification_sentence(found: Found) -> str:
    """About a plane that is larger than the other."""
    if "magnification" not in found["corrected"]:
        return ""
    return f"the upper plane is {found['magnification']:+.2%} larger than the lower (+-{found['magnification_error']:.2%}); it was scaled back."


def light_sentence(found: Found) -> str:
    """About light that changed between the planes from place to place."""
    if found["light_errors"] is None:
        return ""
    terms = (*found["ramp"], *found["quadratic"])
    down, right, *bowl = terms
    changed = f"the light changed between the planes by {down:+.2%} from top to bottom and {right:+.2%} from left to right"
    changed += f", bowl {', '.join(f'{term:+.2%}' for term in bowl)} in y^2, x^2 and y x"
    if {"ramp", "quadratic"} & set(found["corrected"]):
        return f"{changed}; what of it is significant was divided out."
    clear = [abs(term) for term, error in zip(terms, found["light_errors"], strict=True) if abs(term) > max(SIGNIFICANCE * error, SMALLEST_LIGHT)]
    if clear and max(clear) > LARGEST_LIGHT:
        return f"{changed}, more than the {LARGEST_LIGHT:.0%} that are divided out; give a blank-field image of each plane as background."
    return ""


def brightness_sentence(found: Found) -> str:
    """About planes of different exposure."""
    if abs(found["brightness"]) < OTHER_EXPOSURE and "brightness" not in found["corrected"]:
        return ""
    equalised = "; their means were made equal" if "brightness" in found["corrected"] else ""
    return f"the upper plane is {found['brightness']:+.1%} brighter than the lower{equalised}. Use one exposure for both."


def sign_sentence(found: Found) -> str:
    """About structures that come out thinner than what lies around them."""
    if found["sign"] >= 0:
        return ""
    return (
        f"structures come out {-found['sign_rad']:.2g} rad below what lies around them, but cells are denser than their medium: the sign of dz may be flipped. "
        f"If it is, swap the two values of defocus_um."
    )


def clipped_sentence(found: Found) -> str:
    """About saturated planes."""
    if max(found["clipped"]) < FEW_CLIPPED:
        return ""
    lower, upper = found["clipped"]
    return f"{lower:.2%} of the lower plane's pixels and {upper:.2%} of the upper's are saturated: phase is wrong there and around. Expose less."


def same_pixels_sentence(found: Found) -> str:
    """About the same image given twice."""
    return "both planes have the same pixels; give two images at different focus." if found["same_pixels"] else ""


SENTENCES: tuple[Callable[[Found], str], ...] = (
    same_pixels_sentence,
    shift_sentence,
    magnification_sentence,
    light_sentence,
    brightness_sentence,
    sign_sentence,
    clipped_sentence,
)
