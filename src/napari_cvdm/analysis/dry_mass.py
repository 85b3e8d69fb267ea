"""Dry mass in the frames of a phase reconstruction, frame by frame, and the table of results."""

import csv
import io
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_cvdm.analysis.phase_quantities import PhaseField, RegionMass, dry_mass_pg
from napari_cvdm.analysis.regions import regions_on_grid, suggest_regions
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress

QUANTIFY_NOT = "do not quantify"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseFrame:
    """One frame of a phase reconstruction, not read yet.

    Parameters
    ----------
    place : mapping of str to int
        Name of each axis of frames, and where on it this frame is; empty for a single image.
    phase, untrusted : array of shape (Y, X), may be lazy
        [rad]; not 0 where the phase should not be trusted.
    samples : array of shape (N, Y, X), may be lazy, optional
    pixel_um, wavelength_um : float
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
        """The pixels of this frame.

        Raises
        ------
        RequestError
            Pixels that cannot be weighed.
        """
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

    Parameters
    ----------
    frames : sequence of (PhaseFrame, MaskFrame)
    alpha_um3_per_pg : float
        [um^3/pg].

    Yields
    ------
    Progress
        After every frame.

    Returns
    -------
    tuple of FrameMasses

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
            found.append(
                FrameMasses(
                    place=frame.place, masses=_weighed(frame, image, regions, alpha_um3_per_pg)
                )
            )
        yield Progress(stage=f"frame {number} of {len(frames)}", done=number, total=len(frames))
    if not found:
        raise RequestError(
            f"the mask is empty in all {len(frames)} frames. Draw at least one region around a "
            "cell."
        )
    return tuple(found)


def _weighed(
    frame: PhaseFrame, image: PhaseField, regions: np.ndarray, alpha: float
) -> tuple[RegionMass, ...]:
    try:
        return dry_mass_pg(image, regions, alpha)
    except RequestError as error:
        raise RequestError(f"{frame.name()}: {error}" if frame.place else str(error)) from None


def suggest_frames(frames: Sequence[PhaseFrame]) -> Generator[Progress, None, np.ndarray]:
    """A suggested mask for every frame.

    Regions are numbered anew in each frame. The mask of a frame without regions is empty.

    Parameters
    ----------
    frames : sequence of PhaseFrame

    Yields
    ------
    Progress
        After every frame.

    Returns
    -------
    ndarray of shape (len(frames), Y, X), int32

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

    Parameters
    ----------
    measured : sequence of FrameMasses
    made_with : mapping
        Columns that are the same in every row, for example alpha, wavelength and model.

    Returns
    -------
    list of dict
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
