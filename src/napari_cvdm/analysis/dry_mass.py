"""Optical path difference [nm] and dry mass [pg] with its error, from a phase image [rad].

Barer, Nature 169, 366 (1952): matter dissolved in a medium raises the refractive index by alpha
times its concentration. So the sum of the phase over a cell gives its dry mass relative to the
medium. The level of the medium is the zero of that scale. It is the median of the trusted pixels
outside all regions. Pixels that stand out are clipped away first: cells without a region, and
edges that a region left out. No plane is fitted, because the reconstruction of the phase has
already removed the drift of the cell-free background (`inversion.background`).
"""

import csv
import io
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from napari_cvdm.analysis.regions import regions_on_grid, suggest_regions
from napari_cvdm.core.intensity import MAD_TO_SIGMA
from napari_cvdm.core.microscope import check_optics
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress

# Barer and Joseph (1954) give 0.18 mL/g for red and 0.20 mL/g for ultraviolet light. This is the
# default of DryMass.
ALPHA_UM3_PER_PG = 0.18  # mL/g
LEAST_ALPHA, MOST_ALPHA = 0.05, 0.5
SMALLEST_MEDIUM_SHARE = 0.01
CLIPPED_BEYOND = 3.0  # standard deviations of the medium
CLIPPING_ROUNDS = 8
FLATNESS_RAD = 0.05  # what real medium still varies by
NM_PER_UM = 1000.0
QUANTIFY_NOT = "do not quantify"
NO_SAMPLES = "no error: the posterior samples were not kept"
ONE_SAMPLE = "no error: one posterior sample has no spread"
TOUCHING = "touches untrusted pixels ({share:.0%} of it): mass and error may be far off"
LIGHTER = "less phase than the medium: is the sign of the defocus right?"


def optical_path_nm(phase: np.ndarray, wavelength_um: float) -> np.ndarray:
    """Optical path difference phi lambda / (2 pi) [nm] of a phase [rad] for a vacuum wavelength.

    Raises
    ------
    OpticsError
        A wavelength that is none.
    """
    check_optics(pixel_um=None, wavelength_um=wavelength_um, medium_index=None, na=None)
    return phase * (NM_PER_UM * wavelength_um / (2 * np.pi))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseField:
    """One phase image, with all that is needed to weigh what is in it.

    Parameters
    ----------
    phase : ndarray of shape (Y, X)
        [rad]; its level is free.
    pixel_um, wavelength_um : float
        Pixel size in the sample and vacuum wavelength [um].
    samples : ndarray of shape (N, Y, X), optional
        Posterior samples of the phase [rad].
    trusted : ndarray of shape (Y, X), bool, optional
        False where the phase should not be trusted; left out, every pixel is.

    Raises
    ------
    RequestError, OpticsError
        Arrays that do not fit each other, pixels that are no numbers, optics that are not allowed.
    """

    phase: np.ndarray = field(repr=False)
    pixel_um: float
    wavelength_um: float
    samples: np.ndarray | None = field(default=None, repr=False)
    trusted: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_optics(
            pixel_um=self.pixel_um, wavelength_um=self.wavelength_um, medium_index=None, na=None
        )
        if self.phase.ndim != 2:
            raise RequestError(
                f"the phase has {self.phase.ndim} axes; one image with axes Y and X is needed. "
                "Give frame by frame."
            )
        for name, array in (("samples", self.samples), ("trusted", self.trusted)):
            if array is not None and array.shape[-2:] != self.phase.shape:
                raise RequestError(
                    f"{name} has {array.shape[-2:]} pixels, the phase {self.phase.shape}; both "
                    "must be of one reconstruction."
                )
        if not np.isfinite(self.images().sum()):
            raise RequestError(
                "some pixels of the phase are no numbers; was this frame reconstructed to its end? "
                "Reconstruct it again."
            )

    def images(self) -> np.ndarray:
        """What is weighed: the samples, or the one phase image, shape (N, Y, X)."""
        return self.phase[None] if self.samples is None else self.samples

    def trusted_pixels(self) -> np.ndarray:
        """Pixels that may be trusted: (Y, X), bool."""
        if self.trusted is None:
            return np.ones(self.phase.shape, bool)
        return self.trusted.astype(bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionMass:
    """Dry mass and mean phase of one region, relative to the medium.

    Parameters
    ----------
    mass_pg : float
        Dry mass [pg], relative to the medium. It is the mean over the posterior samples, if any.
    error_pg : float, optional
        Standard deviation of the samples' masses [pg]. It is None without samples, and
        `why_no_error` says so. It holds what the photon noise leaves open. It does not hold errors
        of alpha, wavelength, pixel size or outline, and it is not calibrated.
    mean_phase_rad, mean_opd_nm : float
        Above the medium.
    samples : int
        Posterior samples that were weighed; 0 for a phase image without.
    remarks : tuple of str
        Reasons to look at this region again, in words.
    """

    label: int
    area_um2: float
    mass_pg: float
    error_pg: float | None
    mean_phase_rad: float
    mean_opd_nm: float
    samples: int
    why_no_error: str = ""
    remarks: tuple[str, ...] = ()


def dry_mass_pg(
    image: PhaseField, regions: np.ndarray, alpha_um3_per_pg: float = ALPHA_UM3_PER_PG
) -> tuple[RegionMass, ...]:
    """Dry mass in every region: m = lambda / (2 pi alpha) sum(phi - phi_medium) pixel^2.

    Every posterior sample is levelled and weighed by itself. So the error includes the correlation
    of neighbouring pixels and the error of the medium's level. The spread of single pixels cannot
    be summed up to this error.

    Parameters
    ----------
    image : PhaseField
    regions : ndarray of shape (Y, X), int
        0 outside, the region's label inside.
    alpha_um3_per_pg : float
        Specific refraction increment [um^3/pg], the same number as in mL/g.

    Raises
    ------
    RequestError
        No region, too little medium outside all regions, an alpha that no matter has.

    References
    ----------
    Barer and Joseph, Quarterly Journal of Microscopical Science 95, 399 (1954).
    """
    if not LEAST_ALPHA <= alpha_um3_per_pg <= MOST_ALPHA:
        raise RequestError(
            f"alpha is {alpha_um3_per_pg:g} um^3/pg; allowed is {LEAST_ALPHA:g} to {MOST_ALPHA:g}. "
            "For proteins and cells 0.18 to 0.20 is usual."
        )
    medium = find_medium(image, regions)
    labels = np.setdiff1d(regions, 0)
    sums = np.stack(
        [
            ndimage.sum_labels(phase.astype(float) - np.median(phase[medium]), regions, labels)
            for phase in image.images()
        ]
    )
    masses = sums * image.wavelength_um * image.pixel_um**2 / (2 * np.pi * alpha_um3_per_pg)
    pixels = np.bincount(np.searchsorted(labels, regions[regions != 0]))
    found = zip(
        labels, pixels, sums.T, masses.T, _place_remarks(image, regions, labels), strict=True
    )
    return tuple(_region_mass(image, *one) for one in found)


def _region_mass(
    image: PhaseField,
    label: int,
    pixels: int,
    sums: np.ndarray,
    masses: np.ndarray,
    remarks: tuple[str, ...],
) -> RegionMass:
    """One region, from its phase sum [rad] and its mass [pg] in every sample."""
    mean_phase = float(sums.mean() / pixels)
    return RegionMass(
        label=int(label),
        area_um2=float(pixels * image.pixel_um**2),
        mass_pg=float(masses.mean()),
        error_pg=float(masses.std(ddof=1)) if len(masses) > 1 else None,
        mean_phase_rad=mean_phase,
        mean_opd_nm=float(optical_path_nm(np.array(mean_phase), image.wavelength_um)),
        samples=0 if image.samples is None else len(masses),
        why_no_error="" if len(masses) > 1 else NO_SAMPLES if image.samples is None else ONE_SAMPLE,
        remarks=(*remarks, *((LIGHTER,) if mean_phase < -FLATNESS_RAD else ())),
    )


def find_medium(image: PhaseField, regions: np.ndarray) -> np.ndarray:
    """Trusted pixels (Y, X) outside all regions, without outliers.

    Outliers are beyond three standard deviations from the median, and found again until nothing
    changes. The deviation is the scaled median absolute one.

    Raises
    ------
    RequestError
        Regions of another size, no region, or too little left for medium.
    """
    if regions.shape != image.phase.shape:
        raise RequestError(
            f"the mask has {regions.shape} pixels, the phase {image.phase.shape}; draw it on the "
            "phase."
        )
    if not regions.any():
        raise RequestError(
            "the mask is empty: no region covers a pixel of the phase. Draw at least one region "
            "around a cell."
        )
    trusted = image.trusted_pixels()
    outside = (regions == 0) & trusted
    if not trusted.any():
        raise RequestError(
            "no pixel of this phase is trusted, so there is nothing to weigh. See the warnings of "
            "the reconstruction."
        )
    if outside.mean() < SMALLEST_MEDIUM_SHARE:
        raise RequestError(
            f"trusted medium outside all regions is {outside.mean():.1%} of the field; mass is "
            f"relative to it and needs at least {SMALLEST_MEDIUM_SHARE:.0%}. "
            "Draw the regions closer around the cells, or image a field with more empty medium."
        )
    phase, medium = image.images().mean(axis=0), outside
    for _ in range(CLIPPING_ROUNDS):
        away = np.abs(phase - np.median(phase[medium]))
        kept = outside & (away <= CLIPPED_BEYOND * MAD_TO_SIGMA * np.median(away[medium]))
        if (kept == medium).all():
            break
        medium = kept
    return medium


def _place_remarks(
    image: PhaseField, regions: np.ndarray, labels: np.ndarray
) -> list[tuple[str, ...]]:
    untrusted = ~image.trusted_pixels()
    at_edge = np.concatenate([regions[[0, -1]].ravel(), regions[:, [0, -1]].ravel()])
    touching = regions[ndimage.binary_dilation(untrusted)]
    shares = ndimage.mean(untrusted, regions, labels)
    return [
        (
            *(("cut off by the edge of the image",) if label in at_edge else ()),
            *((TOUCHING.format(share=share),) if label in touching else ()),
        )
        for label, share in zip(labels, shares, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseFrame:
    """One frame of a phase reconstruction, not read yet; its arrays may be lazy.

    Parameters
    ----------
    place : mapping of str to int
        Name of each axis of frames, and where on it this frame is; empty for a single image.
    phase, untrusted : array of shape (Y, X)
        [rad]; not 0 where the phase should not be trusted.
    samples : array of shape (N, Y, X), optional
    """

    place: Mapping[str, int]
    phase: Any = field(repr=False)
    pixel_um: float
    wavelength_um: float
    samples: Any = field(default=None, repr=False)
    untrusted: Any = field(default=None, repr=False)

    def name(self) -> str:
        """Where the frame is, in words: ``t 3``; "" for a single image."""
        return ", ".join(f"{axis} {position}" for axis, position in self.place.items())

    def read(self) -> PhaseField:
        """The pixels of this frame; RequestError if they cannot be weighed."""
        return PhaseField(
            phase=np.asarray(self.phase),
            pixel_um=self.pixel_um,
            wavelength_um=self.wavelength_um,
            samples=None if self.samples is None else np.asarray(self.samples),
            trusted=None if self.untrusted is None else np.asarray(self.untrusted) == 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskFrame:
    """The mask of one frame, and its place on the pixel grid of the phase.

    See `regions_on_grid`.
    """

    labels: Any = field(repr=False)
    matrix: np.ndarray = field(repr=False)
    offset: np.ndarray = field(repr=False)

    def read(self, shape: tuple[int, int]) -> np.ndarray:
        """The regions on the grid of the phase."""
        return regions_on_grid(np.asarray(self.labels), self.matrix, self.offset, shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMasses:
    """The regions of one frame, weighed; `place` as in `PhaseFrame`."""

    place: Mapping[str, int]
    masses: tuple[RegionMass, ...]


def measure_frames(
    frames: Sequence[tuple[PhaseFrame, MaskFrame]], alpha_um3_per_pg: float
) -> Generator[Progress, None, tuple[FrameMasses, ...]]:
    """Weigh every region of every frame; frames without a region are left out.

    Raises
    ------
    RequestError
        No frame has a region, or a frame cannot be weighed: the message names it.
    """
    found = []
    for number, (frame, mask) in enumerate(frames, start=1):
        image = frame.read()
        regions = mask.read((image.phase.shape[0], image.phase.shape[1]))
        if regions.any() or len(frames) == 1:
            try:
                masses = dry_mass_pg(image, regions, alpha_um3_per_pg)
            except RequestError as error:
                where = f"{frame.name()}: " if frame.place else ""
                raise RequestError(f"{where}{error}") from None
            found.append(FrameMasses(place=frame.place, masses=masses))
        yield Progress(stage=f"frame {number} of {len(frames)}", done=number, total=len(frames))
    if not found:
        raise RequestError(
            f"the mask is empty in all {len(frames)} frames. Draw at least one region around a "
            "cell."
        )
    return tuple(found)


def suggest_frames(frames: Sequence[PhaseFrame]) -> Generator[Progress, None, np.ndarray]:
    """A suggested mask for every frame, shape (len(frames), Y, X), int32.

    Regions are numbered anew in each frame. The mask of a frame without regions is empty.

    Raises
    ------
    RequestError
        Nothing stands out in any frame.
    """
    masks, problem = [], ""
    for number, frame in enumerate(frames, start=1):
        image = frame.read()
        try:
            masks.append(suggest_regions(image.phase, image.pixel_um, image.trusted))
        except RequestError as error:
            masks.append(np.zeros(image.phase.shape, np.int32))
            problem = str(error)
        yield Progress(stage=f"frame {number} of {len(frames)}", done=number, total=len(frames))
    if not any(mask.any() for mask in masks):
        raise RequestError(problem)
    return np.stack(masks)


def reasons_not_to_quantify(warnings: Sequence[str]) -> tuple[str, ...]:
    """The warnings of a reconstruction that forbid quantification: optics out of training range."""
    return tuple(warning for warning in warnings if QUANTIFY_NOT in warning)


def mass_rows(
    measured: Sequence[FrameMasses], made_with: Mapping[str, object]
) -> list[dict[str, object]]:
    """One table row for each region of each frame; every row also says how it was made.

    `made_with` are columns that are the same in every row, for example alpha, wavelength and model.
    """
    return [
        {
            **frame.place,
            "region": mass.label,
            "area_um2": mass.area_um2,
            "dry_mass_pg": mass.mass_pg,
            "error_pg": "" if mass.error_pg is None else mass.error_pg,
            "mean_phase_rad": mass.mean_phase_rad,
            "mean_opd_nm": mass.mean_opd_nm,
            "samples": mass.samples,
            "remark": "; ".join(filter(None, [mass.why_no_error, *mass.remarks])),
            **made_with,
        }
        for frame in measured
        for mass in frame.masses
    ]


def table_text(rows: Sequence[Mapping[str, object]], delimiter: str = ",") -> str:
    """Rows as CSV with column names in the first line.

    With a tab as `delimiter`, the text can be pasted into a spreadsheet.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
