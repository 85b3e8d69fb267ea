"""The microscope and its camera, as numbers that were checked once, on creation.

Lengths are in micrometres. Every error names the value given, what is allowed and what to try.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

# Wide enough for any light microscope; values in nanometres or metres fall outside.
WAVELENGTH_RANGE_UM = (0.2, 2.0)
PIXEL_RANGE_UM = (0.005, 20.0)
INDEX_RANGE = (1.0, 2.0)
DEFOCUS_LIMIT_UM = 250.0
SMALLEST_DISTANCE_UM = 0.001
FEWEST_PLANES = 2
HIGHEST_CONDENSER_NA = 1.6  # above that of any oil condenser
PIXEL_ADVICE = "Give the pixel size in the sample, in micrometres (65 nm is 0.065)."
NA_ADVICE = "NA cannot exceed the refractive index: raise medium_index (oil 1.518) or lower na."
CONDENSER_ADVICE = (
    "It is the NA of the illumination, not of the objective; leave it out for coherent light."
)


class OpticsError(ValueError):
    """Optics that cannot exist, or that are missing where they are needed."""


def _check_range(name: str, value: float, allowed: tuple[float, float], advice: str) -> None:
    low, high = allowed
    if not isfinite(value) or not low <= value <= high:
        raise OpticsError(f"{name} is {value:g}; allowed is {low:g} to {high:g}. {advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Microscope:
    """Optics of one image, at the sample plane.

    Parameters
    ----------
    pixel_um : float
        Pixel size in the sample [um], 0.005 to 20 (camera pixel * binning / magnification).
    wavelength_um : float
        Vacuum wavelength [um], 0.2 to 2.0: illumination for phase, emission for fluorescence.
    medium_index : float
        Refractive index of the medium between the planes, 1.0 to 2.0.
    na : float, optional
        Numerical aperture of detection, 0.01 up to the medium (or immersion) index. None if it is
        unlimited or unknown.

    Raises
    ------
    OpticsError
        A value outside its range, or NA above the refractive index.
    """

    pixel_um: float
    wavelength_um: float
    medium_index: float = 1.0
    na: float | None = None

    def __post_init__(self) -> None:
        for name, allowed, advice in (
            ("pixel_um", PIXEL_RANGE_UM, PIXEL_ADVICE),
            ("wavelength_um", WAVELENGTH_RANGE_UM, "Give it in micrometres: 520 nm is 0.52."),
            ("medium_index", INDEX_RANGE, "Air is 1.0, water 1.333, oil 1.518."),
        ):
            _check_range(name, getattr(self, name), allowed, advice)
        # NA = n sin(theta), so it is never above the index.
        if self.na is not None:
            _check_range("na", self.na, (0.01, self.medium_index), NA_ADVICE)


def check_optics(
    *,
    pixel_um: float | None,
    wavelength_um: float | None,
    medium_index: float | None,
    na: float | None,
) -> None:
    """OpticsError where a known value is out of its range; each may be None, as in `Microscope`.

    Without an index, NA may be as large as any index.
    """
    # Any value in its range stands for one that is not known.
    Microscope(
        pixel_um=0.1 if pixel_um is None else pixel_um,
        wavelength_um=0.5 if wavelength_um is None else wavelength_um,
        medium_index=INDEX_RANGE[1] if medium_index is None else medium_index,
        na=na,
    )


def check_condenser(condenser_na: float, medium_index: float | None) -> None:
    """OpticsError where the NA of the illumination is below 0, above the medium index or above 1.6.

    0 is coherent light. The index is None if it is unknown.
    """
    index = HIGHEST_CONDENSER_NA if medium_index is None else medium_index
    allowed = (0.0, min(HIGHEST_CONDENSER_NA, index))
    _check_range("condenser_na", condenser_na, allowed, CONDENSER_ADVICE)


def check_defocus(values: Sequence[float]) -> tuple[float, ...]:
    """Check the signed positions of two or more planes [um], and return them.

    Positive is away from the source, toward the objective. OpticsError for fewer than two values,
    two values closer than 1 nm, or one beyond +-250 um.
    """
    if len(values) < FEWEST_PLANES:
        given = f"{len(values)} value{'' if len(values) == 1 else 's'}"
        raise OpticsError(
            f"defocus_um has {given}; at least two are needed, one for each plane, for example -1 "
            "1."
        )
    positions = tuple(float(value) for value in values)
    limits = (-DEFOCUS_LIMIT_UM, DEFOCUS_LIMIT_UM)
    for position in positions:
        _check_range("defocus_um", position, limits, "Give it in micrometres: 500 nm is 0.5.")
    for lower, upper in pairwise(sorted(positions)):
        if upper - lower < SMALLEST_DISTANCE_UM:
            raise OpticsError(
                f"defocus_um has {lower:g} and {upper:g}, the same plane twice; positions must "
                f"differ by {SMALLEST_DISTANCE_UM:g} um or more, for example -1 1."
            )
    return positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A linear camera with Poisson noise and read noise.

    electrons = Poisson(photons * efficiency) + read noise; counts = electrons / gain + offset.

    Parameters
    ----------
    read_noise_e : float
        Standard deviation of the read noise [electrons], >= 0.
    gain_e_per_count : float
        Electrons for one count (ADU), > 0.
    offset_counts : float
        Camera offset [counts].
    quantum_efficiency : float
        Electrons per photon, above 0 and at most 1.
    bit_depth : int, optional
        Counts are rounded and clipped to 0 .. 2**bit_depth - 1; None keeps them real-valued.
    """

    read_noise_e: float = 1.5
    gain_e_per_count: float = 0.5
    offset_counts: float = 100.0
    quantum_efficiency: float = 1.0
    bit_depth: int | None = 16

    def __post_init__(self) -> None:
        for name, allowed, advice in (
            ("read_noise_e", (0.0, 1000.0), "Read noise is given in electrons, usually 1 to 10."),
            ("gain_e_per_count", (1e-6, 1e6), "Electrons per count, usually 0.2 to 10."),
            ("offset_counts", (-1e6, 1e6), "Camera offset in counts, usually 100."),
            ("quantum_efficiency", (1e-6, 1.0), "Electrons per photon, usually 0.7 to 0.95."),
            ("bit_depth", (1, 32), "Usual cameras have 8, 12 or 16 bits."),
        ):
            value = getattr(self, name)
            if value is not None:
                _check_range(name, value, allowed, advice)
