"""Area, mean, sum, optical path difference and dry mass of objects, each with its interval.

Every posterior sample is measured by itself. So an interval includes how neighbouring pixels move
together, which the spread of single pixels does not tell.

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

from napari_cvdm.analysis.intervals import Estimate, LineProfile, estimate_from_samples
from napari_cvdm.analysis.regions import (
    SampledOutlines,
    regions_on_grid,
    suggest_regions,
    triangle_threshold,
)
from napari_cvdm.core.intensity import MAD_TO_SIGMA
from napari_cvdm.core.microscope import check_optics
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress

# Barer and Joseph (1954) give 0.18 mL/g for red and 0.20 mL/g for ultraviolet light.
ALPHA_UM3_PER_PG = 0.18  # mL/g
LEAST_ALPHA, MOST_ALPHA = 0.05, 0.5  # mL/g: proteins and cells have 0.18 to 0.20
SMALLEST_MEDIUM_SHARE = 0.01
CLIPPED_BEYOND = 3.0  # standard deviations of the medium
CLIPPING_ROUNDS = 8  # ends the loop even if two sets of pixels alternate
FLATNESS_RAD = 0.05  # what real medium still varies by
NM_PER_UM = 1000.0
QUANTIFY_NOT = "do not quantify"  # what every warning about optics says, as a test holds
NO_SAMPLES = "no interval: the posterior samples were not kept"
ONE_SAMPLE = "no interval: one posterior sample has no spread"
TOUCHING = "touches untrusted pixels ({share:.0%} of it): values and intervals may be far off"
LIGHTER = "less phase than the medium: is the sign of the defocus right?"
VANISHED = "below the threshold in {count} of {samples} samples"
PHASE = "rad"


def optical_path_nm(phase: np.ndarray, wavelength_um: float) -> np.ndarray:
    """Optical path difference phi lambda / (2 pi) [nm] of a phase [rad] for a vacuum wavelength.

    OpticsError for a wavelength that is none.
    """
    check_optics(pixel_um=None, wavelength_um=wavelength_um, medium_index=None, na=None)
    return phase * (NM_PER_UM * wavelength_um / (2 * np.pi))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultField:
    """One image of a result, with all that is needed to measure what is in it.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        In `unit`. The level of a phase is free.
    pixel_um : float
        Pixel size in the sample [um].
    unit : str
        ``rad`` for a phase, whose zero is the medium; ``counts`` for fluorescence.
    wavelength_um : float, optional
        Vacuum wavelength of a phase [um].
    samples : ndarray of shape (N, Y, X), optional
        Posterior samples.
    trusted : ndarray of shape (Y, X), bool, optional
        False where the result should not be trusted; left out, every pixel is.
    calibration : mapping
        ``factor`` and ``level`` of a calibrated model.
    above_background : bool
        Whether values are relative to the median outside all regions. Those of a phase always are.

    Raises
    ------
    RequestError, OpticsError
        Arrays that do not fit each other, pixels that are no numbers, optics that are not allowed.
    """

    image: np.ndarray = field(repr=False)
    pixel_um: float
    unit: str = PHASE
    wavelength_um: float | None = None
    samples: np.ndarray | None = field(default=None, repr=False)
    trusted: np.ndarray | None = field(default=None, repr=False)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    above_background: bool = False

    def __post_init__(self) -> None:
        check_optics(
            pixel_um=self.pixel_um, wavelength_um=self.wavelength_um, medium_index=None, na=None
        )
        if self.image.ndim != 2:
            raise RequestError(
                f"the result has {self.image.ndim} axes; one image with axes Y and X is needed. "
                "Give frame by frame."
            )
        for name, array in (("samples", self.samples), ("trusted", self.trusted)):
            if array is not None and array.shape[-2:] != self.image.shape:
                raise RequestError(
                    f"{name} has {array.shape[-2:]} pixels, the result {self.image.shape}; both "
                    "must be of one reconstruction."
                )
        # A sum is not finite if one pixel is not, and needs no further array.
        if not np.isfinite(self.images().sum()):
            raise RequestError(
                "some pixels of the result are no numbers; was this frame reconstructed to its "
                "end? Reconstruct it again."
            )

    @property
    def is_phase(self) -> bool:
        """Whether it is a phase of known wavelength, which has an optical path and a dry mass."""
        return self.unit == PHASE and self.wavelength_um is not None

    def images(self) -> np.ndarray:
        """What is measured: the samples, or the one image, shape (N, Y, X)."""
        return self.image[None] if self.samples is None else self.samples

    def trusted_pixels(self) -> np.ndarray:
        """Pixels that may be trusted: (Y, X), bool."""
        if self.trusted is None:
            return np.ones(self.image.shape, bool)
        return self.trusted.astype(bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeasure:
    """What was measured of one object.

    Intervals hold what the data leave open. They hold no error of alpha, wavelength, pixel size,
    nor of an outline that was drawn.

    Parameters
    ----------
    area_um2 : Estimate
        It has an interval if the outline was found in every sample.
    mean, total : Estimate
        Over the pixels, in the unit of the result; of a phase above the medium.
    opd_nm, mass_pg : Estimate, optional
        Mean optical path difference to the medium and dry mass, of a phase.
    samples : int
        Posterior samples that were measured; 0 without.
    why_no_interval : str
    remarks : tuple of str
        Reasons to look at this object again, in words.
    """

    label: int
    area_um2: Estimate
    mean: Estimate
    total: Estimate
    opd_nm: Estimate | None = None
    mass_pg: Estimate | None = None
    samples: int
    why_no_interval: str = ""
    remarks: tuple[str, ...] = ()


def measure_objects(
    result: ResultField,
    regions: np.ndarray,
    alpha_um3_per_pg: float = ALPHA_UM3_PER_PG,
    threshold: float | None = None,
) -> tuple[ObjectMeasure, ...]:
    """Measure every object in every posterior sample.

    The dry mass is m = lambda / (2 pi alpha) sum(phi - phi_medium) pixel^2. Each sample has its own
    level of the medium.

    Parameters
    ----------
    result : ResultField
    regions : ndarray of shape (Y, X), int
        0 outside, the label of the object inside.
    alpha_um3_per_pg : float
        Specific refraction increment [um^3/pg], the same number as in mL/g.
    threshold : float, optional
        That the regions come from, in the unit of the result. Every sample then has its own
        outlines, see `SampledOutlines`. Without it the regions are the outlines in all samples.

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
    # Before the median of the medium, which would be NaN without a pixel.
    check_regions(result, regions)
    relative = result.unit == PHASE or result.above_background
    medium = find_medium(result, regions) if relative else None
    labels, images = np.setdiff1d(regions, 0), result.images()

    def find_level(image: np.ndarray) -> float:
        return 0.0 if medium is None else float(np.median(image[medium]))

    sampled, height = None, 0.0
    if threshold is not None and len(images) > 1:
        sampled = SampledOutlines(regions, result.image, threshold, result.trusted_pixels())
        height = threshold - find_level(result.image)  # the same above the medium of each sample
    pixels, sums = [], []
    for image in images:
        # A phase is known but for a constant, which each sample draws anew.
        level = find_level(image)
        outlines = regions if sampled is None else sampled.find(image, height + level)
        pixels.append(np.bincount(outlines.ravel(), minlength=labels[-1] + 1)[labels])
        sums.append(ndimage.sum_labels(image.astype(float) - level, outlines, labels))
    remarks = _place_remarks(result, regions, labels)
    found = zip(labels, np.transpose(pixels), np.transpose(sums), remarks, strict=True)
    return tuple(_object_measure(result, alpha_um3_per_pg, *one) for one in found)


def _object_measure(
    result: ResultField,
    alpha_um3_per_pg: float,
    label: int,
    pixels: np.ndarray,
    sums: np.ndarray,
    remarks: tuple[str, ...],
) -> ObjectMeasure:
    """One object, from its number of pixels and its sum in every sample."""

    def estimate(values: np.ndarray) -> Estimate:
        return estimate_from_samples(values, result.calibration)

    pixel_um2 = result.pixel_um**2
    # A sample without the object adds nothing to its sum, but it has no mean.
    means = np.divide(sums, pixels, out=np.full(len(sums), np.nan), where=pixels > 0)
    mean, area = estimate(means), pixels * pixel_um2
    optics: dict[str, Estimate] = {}
    if result.is_phase and result.wavelength_um is not None:
        optics["opd_nm"] = estimate(optical_path_nm(means, result.wavelength_um))
        optics["mass_pg"] = estimate(
            sums * result.wavelength_um * pixel_um2 / (2 * np.pi * alpha_um3_per_pg)
        )
    if gone := int((pixels == 0).sum()):
        remarks += (VANISHED.format(count=gone, samples=len(sums)),)
    if result.unit == PHASE and mean.value < -FLATNESS_RAD:
        remarks += (LIGHTER,)
    no_interval = NO_SAMPLES if result.samples is None else ONE_SAMPLE
    return ObjectMeasure(
        label=int(label),
        # A drawn outline is the same in all samples: its area has no interval.
        area_um2=Estimate(value=float(area[0])) if np.ptp(pixels) == 0 else estimate(area),
        mean=mean,
        total=estimate(sums),
        **optics,
        samples=0 if result.samples is None else len(sums),
        why_no_interval="" if len(sums) > 1 else no_interval,
        remarks=remarks,
    )


def check_regions(result: ResultField, regions: np.ndarray) -> None:
    """RequestError unless the regions fit the result, and one of them covers a pixel."""
    if regions.shape != result.image.shape:
        raise RequestError(
            f"the mask has {regions.shape} pixels, the result {result.image.shape}; draw it on the "
            "result."
        )
    if not regions.any():
        raise RequestError(
            "the mask is empty: no region covers a pixel of the result. Draw at least one region "
            "around a cell."
        )
    if not result.trusted_pixels().any():
        raise RequestError(
            "no pixel of this result is trusted, so there is nothing to measure. See the warnings "
            "of the reconstruction."
        )


def find_medium(result: ResultField, regions: np.ndarray) -> np.ndarray:
    """Trusted pixels (Y, X) outside all regions, without outliers.

    Outliers are beyond three standard deviations from the median, and found again until nothing
    changes. The deviation is the scaled median absolute one.

    Raises
    ------
    RequestError
        Too little is left for medium.
    """
    outside = (regions == 0) & result.trusted_pixels()
    if outside.mean() < SMALLEST_MEDIUM_SHARE:
        raise RequestError(
            f"trusted medium outside all regions is {outside.mean():.1%} of the field; values are "
            f"relative to it and need at least {SMALLEST_MEDIUM_SHARE:.0%}. "
            "Draw the regions closer around the cells, or image a field with more empty medium."
        )
    image, medium = result.images().mean(axis=0), outside
    for _ in range(CLIPPING_ROUNDS):
        away = np.abs(image - np.median(image[medium]))
        kept = outside & (away <= CLIPPED_BEYOND * MAD_TO_SIGMA * np.median(away[medium]))
        if (kept == medium).all():
            break
        medium = kept
    return medium


def _place_remarks(
    result: ResultField, regions: np.ndarray, labels: np.ndarray
) -> list[tuple[str, ...]]:
    untrusted = ~result.trusted_pixels()
    at_edge = np.concatenate([regions[[0, -1]].ravel(), regions[:, [0, -1]].ravel()])
    # Cells at untrusted pixels of the frame read up to twice their mass.
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
class MeasuredFrame:
    """One frame of a result, not read yet; its arrays may be lazy.

    Parameters
    ----------
    place : mapping of str to int
        Name of each axis of frames, and where on it this frame is; empty for a single image.
    image, untrusted : array of shape (Y, X)
        In the unit of the result; not 0 where it should not be trusted.
    samples : array of shape (N, Y, X), optional
    optics : mapping
        Further fields of a `ResultField`.
    """

    place: Mapping[str, int]
    image: Any = field(repr=False)
    samples: Any = field(default=None, repr=False)
    untrusted: Any = field(default=None, repr=False)
    optics: Mapping[str, Any]

    def name(self) -> str:
        """Where the frame is, in words: ``t 3``; "" for a single image."""
        return ", ".join(f"{axis} {position}" for axis, position in self.place.items())

    def read(self) -> ResultField:
        """The pixels of this frame; RequestError if they cannot be measured."""
        return ResultField(
            image=np.asarray(self.image),
            samples=None if self.samples is None else np.asarray(self.samples),
            trusted=None if self.untrusted is None else np.asarray(self.untrusted) == 0,
            **self.optics,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskFrame:
    """The mask of one frame, and its place on the pixel grid of the result.

    See `regions_on_grid`. The threshold is that which the mask was suggested by, if it was.
    """

    labels: Any = field(repr=False)
    matrix: np.ndarray = field(repr=False)
    offset: np.ndarray = field(repr=False)
    threshold: float | None = None

    def read(self, shape: tuple[int, int]) -> np.ndarray:
        """The regions on the grid of the result."""
        return regions_on_grid(np.asarray(self.labels), self.matrix, self.offset, shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMeasures:
    """The objects of one frame; `place` as in `MeasuredFrame`."""

    place: Mapping[str, int]
    objects: tuple[ObjectMeasure, ...]


def measure_frames(
    frames: Sequence[tuple[MeasuredFrame, MaskFrame]], alpha_um3_per_pg: float = ALPHA_UM3_PER_PG
) -> Generator[Progress, None, tuple[FrameMeasures, ...]]:
    """Measure every object of every frame; frames without a region are left out.

    Raises
    ------
    RequestError
        No frame has a region, or a frame cannot be measured: the message names it.
    """
    found = []
    for number, (frame, mask) in enumerate(frames, start=1):
        result = frame.read()
        regions = mask.read((result.image.shape[0], result.image.shape[1]))
        if regions.any() or len(frames) == 1:  # the only frame says itself that its mask is empty
            try:
                objects = measure_objects(result, regions, alpha_um3_per_pg, mask.threshold)
            except RequestError as error:
                where = f"{frame.name()}: " if frame.place else ""
                raise RequestError(f"{where}{error}") from None
            found.append(FrameMeasures(place=frame.place, objects=objects))
        yield Progress(stage=f"frame {number} of {len(frames)}", done=number, total=len(frames))
    if not found:
        raise RequestError(
            f"the mask is empty in all {len(frames)} frames. Draw at least one region around a "
            "cell."
        )
    return tuple(found)


def suggest_frames(
    frames: Sequence[MeasuredFrame],
) -> Generator[Progress, None, tuple[np.ndarray, tuple[float | None, ...]]]:
    """A suggested mask for every frame, shape (len(frames), Y, X), int32, and its threshold.

    Regions are numbered anew in each frame. The mask of a frame without regions is empty, and it
    has no threshold.

    Raises
    ------
    RequestError
        Nothing stands out in any frame.
    """
    masks: list[np.ndarray] = []
    thresholds: list[float | None] = []
    problem = ""
    for number, frame in enumerate(frames, start=1):
        result = frame.read()
        try:
            masks.append(suggest_regions(result.image, result.pixel_um, result.trusted))
            thresholds.append(triangle_threshold(result.image, result.trusted_pixels()))
        except RequestError as error:
            masks.append(np.zeros(result.image.shape, np.int32))
            thresholds.append(None)
            problem = str(error)
        yield Progress(stage=f"frame {number} of {len(frames)}", done=number, total=len(frames))
    if not any(mask.any() for mask in masks):
        raise RequestError(problem)
    return np.stack(masks), tuple(thresholds)


def reasons_not_to_quantify(warnings: Sequence[str]) -> tuple[str, ...]:
    """The warnings of a reconstruction that forbid quantification: optics out of training range."""
    return tuple(warning for warning in warnings if QUANTIFY_NOT in warning)


def object_rows(
    measured: Sequence[FrameMeasures], made_with: Mapping[str, object]
) -> list[dict[str, object]]:
    """One table row for each object of each frame; every row also says how it was made.

    Intervals are the columns that end in ``_low`` and ``_high``; they are empty where there are
    none. `made_with` are columns that are the same in every row, for example alpha and model.
    """
    return [
        {
            **frame.place,
            "region": one.label,
            **_columns("area_um2", one.area_um2),
            **_mass_columns(one),
            **_columns("mean", one.mean),
            **_columns("sum", one.total),
            **_columns("mean_opd_nm", one.opd_nm),
            "interval_level": one.mean.level,
            "interval_calibrated": one.mean.calibrated,
            "samples": one.samples,
            "remark": "; ".join(filter(None, [one.why_no_interval, *one.remarks])),
            **made_with,
        }
        for frame in measured
        for one in frame.objects
    ]


def _columns(name: str, estimate: Estimate | None) -> dict[str, object]:
    if estimate is None:
        return {}
    ends = {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {name: estimate.value, **{end: "" if at is None else at for end, at in ends.items()}}


def _mass_columns(one: ObjectMeasure) -> dict[str, object]:
    if one.mass_pg is None:
        return {}
    deviation = one.mass_pg.deviation
    return {
        **_columns("dry_mass_pg", one.mass_pg),
        "error_pg": "" if deviation is None else deviation,
        "mean_phase_rad": one.mean.value,
    }


def profile_rows(
    profile: LineProfile, raw: np.ndarray | None, made_with: Mapping[str, object]
) -> list[dict[str, object]]:
    """One table row for each point of a line; every row also says how it was made.

    `raw` (K,) is the measured image at the same points. The widths are in every row.
    """
    numbers = {**_columns("fwhm_um", profile.fwhm_um), **_columns("peaks_um", profile.peaks_um)}
    columns = {
        "distance_um": profile.distance_um,
        "value": profile.mean,
        "low": profile.low,
        "high": profile.high,
        "raw": raw,
    }
    return [
        {
            **{name: "" if line is None else float(line[at]) for name, line in columns.items()},
            **numbers,
            "interval_level": profile.level,
            "interval_calibrated": profile.calibrated,
            "samples": profile.samples,
            **made_with,
        }
        for at in range(len(profile.distance_um))
    ]


def table_text(rows: Sequence[Mapping[str, object]], delimiter: str = ",") -> str:
    """Rows as CSV with column names in the first line.

    With a tab as `delimiter`, the text can be pasted into a spreadsheet.
    """
    text = io.StringIO()
    # csv would end lines with CR LF.
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
