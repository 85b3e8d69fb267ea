"""Warnings about mistakes in the acquisition of defocused planes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    return (
        f"the uppermost plane lies {down:+.1f} px down and {right:+.1f} px right of the lowest. "
        "Register the planes and crop them to the same field."
    )


def brightness_sentence(found: Found) -> str:
    """About planes of different exposure."""
    if abs(found["brightness"]) < OTHER_EXPOSURE:
        return ""
    return (
        f"the uppermost plane is {found['brightness']:+.1%} brighter than the lowest. Use one "
        "exposure for all."
    )


def sign_sentence(found: Found) -> str:
    """About structures that come out thinner than what lies around them."""
    if found["sign"] >= 0:
        return ""
    return (
        f"structures come out {-found['sign_rad']:.2g} rad below their surroundings, but cells are "
        "denser than their medium: the sign of dz may be flipped. If it is, reverse the sign of "
        "all positions in defocus_um."
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
    brightness_sentence,
    sign_sentence,
    clipped_sentence,
)
