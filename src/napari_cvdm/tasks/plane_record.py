"""What was found between two planes of focus, as it stands in the record of a result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneChecks:
    """Differences of the upper plane from the lower that are not defocus.

    None where they cannot be determined.

    Parameters
    ----------
    shift_px : tuple of float, optional
        (y, x) of the upper plane, in the middle of all structures [px].
    shift_error_px : float, optional
    magnification : float, optional
        The upper plane is larger by this share.
    magnification_error : float, optional
        None too where there are too few structures to tell it from defocus.
    ramp : tuple of float, optional
        (y, x): change of the ratio of the planes from edge to edge, as a share.
    quadratic : tuple of float, optional
        Coefficients of y^2, x^2 and y x of the ratio, y and x from -1/2 to 1/2.
    light_errors : tuple of float, optional
        Standard errors of both ramps and the three quadratic terms.
    brightness : float
        The upper plane is brighter by this share.
    sign : int
        1: structures are denser than their surroundings; -1: thinner; 0: undetermined.
    sign_rad : float, optional
        By how much [rad].
    clipped : tuple of float
        Share of the pixels of each plane at the top of the camera's range, or piled up at their
        largest value.
    same_pixels : bool
        Two neighbouring planes are the same image, with something in it.
    corrected : tuple of str
        Names of what was corrected: shift_px, magnification, ramp, quadratic, brightness.
    notes : tuple of str
        What could not be determined, in words.
    """

    shift_px: tuple[float, float] | None
    shift_error_px: float | None
    magnification: float | None
    magnification_error: float | None
    ramp: tuple[float, float] | None
    quadratic: tuple[float, float, float] | None
    light_errors: tuple[float, ...] | None
    brightness: float
    sign: int
    sign_rad: float | None
    clipped: tuple[float, ...]
    same_pixels: bool
    corrected: tuple[str, ...]
    notes: tuple[str, ...]

    def as_mapping(self) -> Mapping[str, Any]:
        """The same for a record, by name."""
        return asdict(self)
