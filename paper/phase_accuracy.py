"""The bars of the phase, beside US-TIE and the physics alone.

US-TIE has the regularisation that suits each field best.

`python -m paper.phase_accuracy [photographs] [parts] [hl60] [specimens] [real] [time]`, all by
default. `--trust 0 0.5 1` prints them for other shares of what the network changes.
"""

import argparse
from collections.abc import Callable, Sequence
from unittest.mock import patch

import numpy as np
import tifffile
import torch

from napari_cvdm.baselines import BASELINES, Baseline
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.physics.forward_model import PhaseForwardModel, PhaseObject
from napari_cvdm.physics.tie import us_tie_of
from napari_cvdm.tasks import phase_posterior
from paper import phase_fields
from paper.hl60 import REGULARISATIONS
from paper.measure import DATA, Row, finish, print_rows, rmse
from paper.microlens import measured_planes as measured_microlens
from paper.phase_fields import PHOTOGRAPHS, JudgedField

SAMPLES = 8
EDGE_PX = 8
STAGE_UM = (1341.95, 1352.25, 1362.00)  # larger stage z is negative defocus
CELL_PARTS = ((300, 400), (100, 800), (560, 200))
PART_PX = 256
Error = Callable[[np.ndarray, np.ndarray], float]


def mean_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute error [rad] without a border band; the median difference is removed."""
    difference = (found - truth)[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]
    return float(np.abs(difference - np.median(difference)).mean())


def solve(
    one: JudgedField, method: Checkpoint | Baseline, samples: int = SAMPLES
) -> Reconstruction:
    """A method on one field, its blank-field intensity known."""
    image = ImageStack(
        array=one.planes.astype(np.float32),
        axes="PYX",
        pixel_um=one.microscope.pixel_um,
        source=one.name,
    )
    request = ReconstructionRequest(
        image=image,
        model=method.card.name,
        samples=samples,
        background="none",
        wavelength_um=one.microscope.wavelength_um,
        medium_index=one.microscope.medium_index,
        defocus_um=one.defocus_um,
        condenser_na=one.condenser_na or None,
    )
    return finish(request, method)


def best_us_tie(one: JudgedField, error: Error) -> float:
    """Error of US-TIE at this field's best regularisation, which is chosen with the truth."""
    light = torch.from_numpy(one.planes.astype(np.float64))
    positions = (one.defocus_um[0], one.defocus_um[-1])
    return min(
        error(us_tie_of(light[[0, -1]], positions, one.microscope, r).numpy(), one.phase)
        for r in REGULARISATIONS
    )


def compare(
    what: str,
    fields: Sequence[JudgedField],
    model: Checkpoint,
    error: Error,
    bar: float,
    *,
    ratio: bool,
) -> list[Row]:
    """Errors of every field by US-TIE, the physics and the model, and their means beside the bar.

    With `ratio` the bar is the most that the model's mean may be of US-TIE's, else the least share
    by which it must be lower.
    """
    errors = []
    for one in fields:
        physics, learned = (
            error(solve(one, method).mean, one.phase)
            for method in (BASELINES["phase-physics"], model)
        )
        errors.append((best_us_tie(one, error), physics, learned))
    rows = [
        Row(
            what=f"{what}, {one.name}: US-TIE, physics, {model.card.name} [rad]",
            value=", ".join(f"{value:.3f}" for value in values),
        )
        for one, values in zip(fields, errors, strict=True)
    ]
    tie, physics, learned = np.mean(errors, axis=0)
    value = (
        f"{tie:.3f}, {physics:.3f}, {learned:.3f}: {learned / tie:.2f} of US-TIE, "
        f"{1 - learned / tie:.0%} lower"
    )
    asked = f"<= {bar:g} of US-TIE" if ratio else f">= {bar:.0%} lower"
    met = learned / tie <= bar if ratio else 1 - learned / tie >= bar
    never_worse = all(
        model_error <= physics_error * 1.001 for _, physics_error, model_error in errors
    )
    better = sum(model_error < physics_error for _, physics_error, model_error in errors)
    return [
        *rows,
        Row(
            what=f"{what}: mean of US-TIE, physics, {model.card.name} [rad]",
            value=value,
            bar=asked,
            met=met,
        ),
        Row(
            what=f"{what}: {model.card.name} better than the physics",
            value=f"{better} of {len(errors)}",
            bar="all",
            met=never_worse,
        ),
    ]


def photographs(model: Checkpoint) -> list[Row]:
    """The official setting."""
    return compare(
        "official setting", phase_fields.photograph_fields(), model, mean_error, 0.78, ratio=False
    )


def parts(model: Checkpoint) -> list[Row]:
    """Parts of larger photographs."""
    return compare(
        "parts of photographs",
        phase_fields.photograph_fields(192, 32),
        model,
        mean_error,
        0.75,
        ratio=False,
    )


def hl60_cells(model: Checkpoint) -> list[Row]:
    """A measured cell, whole and cut by the frame."""
    cut = compare(
        "HL60 cut", phase_fields.hl60_fields(phase_fields.CUT_PX), model, rmse, 0.15, ratio=True
    )
    return [*cut, *compare("HL60 whole", phase_fields.hl60_fields(), model, rmse, 0.75, ratio=True)]


def specimens(model: Checkpoint) -> list[Row]:
    """Simulated cells and tissue under everything at once."""
    return compare("specimens", phase_fields.specimen_fields(), model, rmse, 0.45, ratio=True)


def predict_plane(
    phase: np.ndarray, microscope: Microscope, position_um: float, measured: np.ndarray
) -> float:
    """Root mean square of what a phase leaves unexplained of a plane that was not used.

    The light of the plane is fitted. A band along the border is left out.
    """
    model = PhaseForwardModel.create(phase.shape, [position_um], microscope)
    sample = PhaseObject(
        maps=torch.from_numpy(np.stack([np.zeros_like(phase), phase])).float(),
        illumination=model.zero().illumination,
    )
    expected = model.apply(sample)[0].numpy()
    band = max(EDGE_PX, min(phase.shape) // 8)
    inner = (slice(band, -band), slice(band, -band))
    gain = float((expected[inner] * measured[inner]).sum() / np.square(expected[inner]).sum())
    return float(np.sqrt(np.mean((measured[inner] - gain * expected[inner]) ** 2)))


def cell_parts() -> list[tuple[JudgedField, np.ndarray]]:
    """Parts of a real stack of cells: the planes below and in focus, and the one above.

    No phase of them is known; `phase` is the plane below.
    """
    below, focus, _ = STAGE_UM
    folder = DATA / "qpi/sephace_brightfield"
    stack = np.stack(
        [
            tifffile.imread(folder / f"set1_fine_z{stage:.2f}.tif").astype(np.float64)
            for stage in STAGE_UM
        ]
    )
    stack = stack / np.median(stack)
    microscope = Microscope(pixel_um=0.2004, wavelength_um=0.55, medium_index=1.0)
    parts = []
    for top, left in CELL_PARTS:
        part = stack[:, top : top + PART_PX, left : left + PART_PX]
        one = JudgedField(
            name=f"cells at {top}, {left}",
            planes=part[:2],
            phase=part[0],
            microscope=microscope,
            defocus_um=(focus - below, 0.0),
        )
        parts.append((one, part[2]))
    return parts


def real(model: Checkpoint) -> list[Row]:
    """Each method's phase predicts a real plane that was not used.

    That is the upper plane of a stack of cells.
    """
    below, focus, above = STAGE_UM
    rows, ratios = [], []
    for one, unused in cell_parts():
        found = [solve(one, method).mean for method in (BASELINES["phase-physics"], model)]
        light = torch.from_numpy(np.ascontiguousarray(one.planes[::-1]))
        tie = min(
            predict_plane(
                us_tie_of(light, (0.0, focus - below), one.microscope, r).numpy(),
                one.microscope,
                focus - above,
                unused,
            )
            for r in REGULARISATIONS
        )
        ours = [predict_plane(phase, one.microscope, focus - above, unused) for phase in found]
        ratios.append(ours[1] / tie)
        value = f"{tie:.4f}, {ours[0]:.4f}, {ours[1]:.4f}"
        rows.append(
            Row(
                what=(
                    f"{one.name}: unused plane, residual of best US-TIE, physics, {model.card.name}"
                ),
                value=value,
            )
        )
    mean = float(np.mean(ratios))
    rows.append(
        Row(
            what="cells: residual of an unused plane over that of US-TIE",
            value=f"{mean:.2f}",
            bar="<= 0.6",
            met=mean <= 0.6,
        )
    )
    return [*rows, *microlens(model)]


def microlens(model: Checkpoint) -> list[Row]:
    """A real microlens pair: how each phase explains the defocused plane."""
    planes, reference = measured_microlens()
    part = (slice(300, 300 + PART_PX), slice(400, 400 + PART_PX))
    microscope = Microscope(pixel_um=0.2325, wavelength_um=0.55, medium_index=1.0)
    scaled = planes.astype(np.float64)[:, *part] / np.median(planes)
    one = JudgedField(
        name="microlens",
        planes=scaled,
        phase=reference[part],
        microscope=microscope,
        defocus_um=(0.0, -1.0),
    )
    ours = [
        predict_plane(solve(one, method).mean, microscope, -1.0, scaled[1])
        for method in (BASELINES["phase-physics"], model)
    ]
    theirs = predict_plane(reference[part].astype(np.float64), microscope, -1.0, scaled[1])
    value = f"{theirs:.4f}, {ours[0]:.4f}, {ours[1]:.4f}"
    return [
        Row(
            what=(
                "microlens: defocused plane, residual of the authors' US-TIE, physics, "
                f"{model.card.name}"
            ),
            value=value,
            bar="<= 0.6 of US-TIE's",
            met=ours[1] <= 0.6 * theirs,
        )
    ]


def time_rows(model: Checkpoint) -> list[Row]:
    """Seconds for two planes of 256 x 256 pixels, everything included; the second of two runs."""
    periodic = phase_fields.photograph_fields(256, names=PHOTOGRAPHS[:1])
    rows = []
    for one in (*periodic, *phase_fields.specimen_fields(1, 256)):
        for method, bar in ((BASELINES["phase-physics"], 1.0), (model, 4.0)):
            seconds = [solve(one, method).provenance.timings_s["total"] for _ in range(2)][1]
            what = f"{one.name}, {method.card.name}, {torch.get_num_threads()} threads [s]"
            row = Row(what=what, value=f"{seconds:.1f}", bar=f"<= {bar:g}", met=seconds <= bar)
            rows.append(row)
    return rows


PARTS: dict[str, Callable[[Checkpoint], list[Row]]] = {
    "photographs": photographs,
    "parts": parts,
    "hl60": hl60_cells,
    "specimens": specimens,
    "real": real,
    "time": time_rows,
}


def main(words: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--model", default="phase-2shot")
    parser.add_argument(
        "--trust",
        nargs="+",
        type=float,
        default=[phase_posterior.TRUST],
        metavar="T",
        help="shares, 0 to 1",
    )
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {' '.join(unknown)}; known are {', '.join(PARTS)}")
    model = load_model(arguments.model)
    for trust in arguments.trust:
        with patch.object(phase_posterior, "TRUST", trust):
            for name in arguments.parts or PARTS:
                print_rows(
                    f"Phase: {name}, {trust:g} of what the network changes", PARTS[name](model)
                )


if __name__ == "__main__":
    main()
