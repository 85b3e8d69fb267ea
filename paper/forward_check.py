"""What imaging a result again finds.

`python -m paper.forward_check [--fields N] [--reconstructed N]`

Simulated fields that nobody trained on, in the ranges of each shipped model: chi-squared of the
truth, of faults planted into it, of what the model makes of the image, and of that with wrong
optics; how often each is beyond the limit; and what the check costs beside the run. For a phase
also: draws of the physics alone on fields and on the package's own samples, and planes in reversed
order.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import tifffile

from napari_cvdm.checks.check_model import in_steps
from napari_cvdm.checks.forward_check import LIMIT, ForwardCheckAccumulator, forward_model_for
from napari_cvdm.checks.plane_warnings import order_sentence, reverse_positions
from napari_cvdm.checks.run_checks import RunChecks
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import ForwardCheck, finished
from napari_cvdm.core.statistics import RunningMoments
from napari_cvdm.evaluation.pair_sets import trained_ranges
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.plan import prepare_frame, resolve
from napari_cvdm.simulate import samples
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.simulate.scenes import simulate_phase, simulate_widefield
from napari_cvdm.tasks import TASKS
from napari_cvdm.tasks.phase_inversion import draw_phases
from napari_cvdm.tasks.phase_posterior import PhasePosterior
from paper.measure import DATA, Row, finish, print_rows

FIRST_SEED = 8_000_000
SAMPLES, STEPS, DRAWS = 2, 6, 4
RESTORED_PX = 96  # of the middle of each field: the command is to end in minutes
Change = Callable[[ReconstructionRequest, np.ndarray], tuple[ReconstructionRequest, np.ndarray]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """A request for a simulated image, and its truth."""

    request: ReconstructionRequest
    truth: np.ndarray


def simulated(model: str, seed: int) -> Field:
    """One field of the ranges in the model's card."""
    card = load_model(model).card
    options: dict[str, Any] = {"model": model, "samples": SAMPLES, "steps": STEPS, "device": "cpu"}
    ranges = trained_ranges(card)
    pair = (
        simulate_phase(seed, ranges)
        if isinstance(ranges, PhaseRanges)
        else simulate_widefield(seed, ranges)
    )
    seen = pair.microscope
    optics = {
        name: getattr(seen, name) for name in ("pixel_um", "wavelength_um", "medium_index", "na")
    }
    if card.unit == "rad":
        image = ImageStack(array=pair.planes, axes="PYX", pixel_um=seen.pixel_um)
        condenser_na = pair.condenser_na or None
        request = ReconstructionRequest(
            image=image,
            defocus_um=pair.defocus_um,
            background="none",
            condenser_na=condenser_na,
            **options,
            **optics,
        )
        return Field(request=request, truth=pair.phase)
    return Field(
        request=ReconstructionRequest(
            image=ImageStack(array=pair.counts, axes="YX", pixel_um=seen.pixel_um),
            **options,
            **optics,
        ),
        truth=pair.truth,
    )


def chi2(request: ReconstructionRequest, image: np.ndarray) -> float:
    """Of an image, as a reconstruction of the request would be checked."""
    card = load_model(request.model).card
    task = TASKS[card.task]
    prepared = prepare_frame(request.image.frame(()), request, task)
    how = finished(forward_model_for(prepared, resolve(request, task), card))
    return finished(in_steps(how.compare(image))).chi2(how.valid)


def planted(
    request: ReconstructionRequest, truth: np.ndarray
) -> tuple[ReconstructionRequest, np.ndarray]:
    """A line of 4 x 40 pixels, half as bright as the brightest structure (0.3 rad for a phase)."""
    false, middle = truth.copy(), truth.shape[0] // 2
    false[middle : middle + 4, middle - 20 : middle + 20] += (
        0.3 if request.defocus_um else np.percentile(truth, 99.5) / 2
    )
    return request, false


def scaled(name: str, factor: float) -> Change:
    """The same image with an optics value that is wrong by a factor."""

    def change(
        request: ReconstructionRequest, truth: np.ndarray
    ) -> tuple[ReconstructionRequest, np.ndarray]:
        value = getattr(request, name)
        return replace(
            request,
            **{
                name: tuple(factor * one for one in value)
                if isinstance(value, tuple)
                else factor * value
            },
        ), truth

    return change


FAULTS: dict[str, dict[str, Change]] = {
    "widefield-x2": {
        "a false line": planted,
        "half the pixel size": scaled("pixel_um", 0.5),
        "twice the pixel size": scaled("pixel_um", 2.0),
    },
    "phase-2shot": {
        "a false line": planted,
        "half the pixel size": scaled("pixel_um", 0.5),
        "dz 20 % too large": scaled("defocus_um", 1.2),
        "the sign of dz": scaled("defocus_um", -1.0),
    },
}


def row(what: str, values: list[float]) -> Row:
    """Median, 95 % quantile and share beyond the limit."""
    beyond = float(np.mean(np.array(values) > LIMIT))
    return Row(
        what=what, value=f"{np.median(values):.2f}, {np.quantile(values, 0.95):.2f}, {beyond:.0%}"
    )


def on_truths(model: str, fields: int) -> list[Row]:
    """Chi-squared of truths, and of faults."""
    made = [simulated(model, FIRST_SEED + number) for number in range(fields)]
    rows = [row(f"{model}: the truth", [chi2(field.request, field.truth) for field in made])]
    for name, change in FAULTS[model].items():
        rows.append(
            row(
                f"{model}: the truth with {name}",
                [chi2(*change(field.request, field.truth)) for field in made],
            )
        )
    return rows


def check_draws(request: ReconstructionRequest) -> ForwardCheck:
    """The check of draws of the physics alone, in place of a model's samples."""
    card = load_model(request.model).card
    task = TASKS[card.task]
    prepared = prepare_frame(request.image.frame(()), request, task)
    assert isinstance(prepared.posterior, PhasePosterior)
    fit = prepared.posterior.fit
    drawn = (
        finished(draw_phases(fit, 1, range(DRAWS)))[:, *fit.model.frame].numpy() + fit.phase.numpy()
    )
    record = ForwardCheckAccumulator(resolve(request, task), card, None)
    finished(record.begin((), prepared))
    for sample in drawn:
        finished(record.see(sample))
    finished(record.end(RunningMoments(drawn.mean(axis=0), drawn.var(axis=0, ddof=1), len(drawn))))
    return record.result()


def on_draws(fields: int) -> list[Row]:
    """Chi-squared of draws of the physics, on simulated fields and on the package's samples."""
    made = [
        check_draws(simulated("phase-2shot", FIRST_SEED + number).request)
        for number in range(fields)
    ]
    rows = [
        row(f"the mean of {DRAWS} draws of the physics", [float(check.chi2 or 0) for check in made])
    ]
    rows.append(row("one draw of the physics", [float(check.sample_chi2) for check in made]))
    for name, image, positions in (
        ("cells", samples.cell_planes(), samples.CELL_DEFOCUS_UM),
        ("measured cell", samples.measured_cell_planes(), samples.MEASURED_DEFOCUS_UM),
    ):
        check = check_draws(
            ReconstructionRequest(
                image=image, model="phase-2shot", samples=DRAWS, steps=STEPS, defocus_um=positions
            )
        )
        chi2_found = float(check.chi2 or 0)
        rows.append(
            Row(
                what=f"the package's sample: {name}",
                value=f"{chi2_found:.2f}",
                bar="0.8 to 1.2",
                met=0.8 <= chi2_found <= 1.2,
            )
        )
    return rows


def said_of_order(request: ReconstructionRequest) -> bool:
    """Whether the planes of a request are said to be in the wrong order."""
    task = TASKS["phase-2shot"]
    posterior = prepare_frame(request.image.frame(()), request, task).posterior
    assert isinstance(posterior, PhasePosterior)
    return bool(order_sentence(posterior.fit, resolve(request, task)))


def on_orders(fields: int) -> list[Row]:
    """How often fields with unequal positions are said to be in the wrong order.

    The fields are given in the right order and in the wrong one.
    """
    requests = [simulated("phase-2shot", FIRST_SEED + number).request for number in range(fields)]
    asked = [
        (request, request.defocus_um) for request in requests if request.defocus_um is not None
    ]
    unequal = [
        request
        for request, positions in asked
        if abs(sum(positions)) > 0.02 * max(map(abs, positions))
    ]
    swapped = [
        replace(request, defocus_um=reverse_positions(request.defocus_um or ()))
        for request in unequal
    ]
    right, wrong = (sum(map(said_of_order, group)) for group in (unequal, swapped))
    return [
        Row(
            what="planes in the right order that are said to be swapped",
            value=f"{right} of {len(unequal)}",
            bar="0",
            met=right == 0,
        ),
        Row(what="swapped planes that are said to be swapped", value=f"{wrong} of {len(swapped)}"),
    ]


def middle_of(request: ReconstructionRequest) -> ReconstructionRequest:
    """The same for the middle of its image."""
    top, left = ((size - RESTORED_PX) // 2 for size in request.image.array.shape[-2:])
    pixels = request.image.array[..., top : top + RESTORED_PX, left : left + RESTORED_PX]
    return replace(request, image=replace(request.image, array=pixels))


def on_results(model: str, fields: int) -> list[Row]:
    """Chi-squared of what the model makes of the images, its light, and what the check costs."""
    results, started, spent = [], time.perf_counter(), Stopwatch()
    with patch.multiple(
        RunChecks,
        begin=spent.timed(RunChecks.begin),
        see=spent.timed(RunChecks.see),
        end=spent.timed(RunChecks.end),
    ):
        for number in range(fields):
            results.append(
                finish(middle_of(simulated(model, FIRST_SEED + number).request), load_model(model))
            )
    seconds = time.perf_counter() - started
    checks = [
        result.forward
        for result in results
        if result.forward is not None and result.forward.chi2 is not None
    ]
    lights = [result.provenance.quality_flag for result in results]
    left = [check.unexplained for check in checks if check.unexplained is not None]
    return [
        row(
            f"{model}: the mean of {SAMPLES} samples", [float(check.chi2 or 0) for check in checks]
        ),
        row(f"{model}: one sample", [float(np.nanmean(check.sample_chi2)) for check in checks]),
        Row(
            what=f"{model}: share of the structure left over by the mean, median and 95 %",
            value=f"{np.median(left):.1%}, {np.quantile(left, 0.95):.1%}",
        ),
        Row(
            what=f"{model}: flux (gain fitted), median and range",
            value=_range([float(check.gain or 0) for check in checks]),
        ),
        Row(
            what=f"{model}: lights green, amber, red",
            value=", ".join(str(lights.count(colour)) for colour in ("green", "amber", "red")),
        ),
        Row(
            what=f"{model}: share of the run that the check takes",
            value=f"{spent.seconds / seconds:.1%}",
            bar="< 10 %",
            met=spent.seconds < 0.1 * seconds,
        ),
    ]


def measured() -> dict[str, ReconstructionRequest]:
    """Parts of real images, 96 px wide, with the optics that come with them.

    The optics of T-SIM are not recorded and were assumed.
    """
    options: dict[str, Any] = {"samples": SAMPLES, "steps": STEPS, "device": "cpu"}
    lens = np.stack(
        [
            tifffile.imread(DATA / "qpi/ustie_microlens" / name)
            for name in ("I0.tiff", "Iz_-1um.tiff")
        ]
    )
    cells = np.stack(
        [
            tifffile.imread(DATA / f"qpi/sephace_brightfield/set1_fine_z{z}.tif")
            for z in ("1362.00", "1341.95")
        ]
    )
    network = tifffile.imread(DATA / "sr/tsim_er/ER_1_wf_t1.tif")
    phase = {"model": "phase-2shot", "wavelength_um": 0.55, **options}
    return {
        "microlens array": ReconstructionRequest(
            image=_stack(lens, 0.2325), medium_index=1.0, defocus_um=(0.0, -1.0), **phase
        ),
        "brightfield cells": ReconstructionRequest(
            image=_stack(cells, 0.2004), medium_index=1.33, defocus_um=(-10.0, 10.05), **phase
        ),
        "endoplasmic reticulum": ReconstructionRequest(
            image=_stack(network, 0.0626),
            model="widefield-x2",
            na=1.49,
            wavelength_um=0.52,
            medium_index=1.518,
            **options,
        ),
    }


def _stack(pixels: np.ndarray, pixel_um: float) -> ImageStack:
    return ImageStack(
        array=pixels, axes="PYX" if pixels.ndim == len("PYX") else "YX", pixel_um=pixel_um
    )


def on_measured() -> list[Row]:
    """Chi-squared, what is left over and the light of real images."""
    rows = []
    for name, request in measured().items():
        result = finish(middle_of(request), load_model(request.model))
        check, provenance = result.forward, result.provenance
        if check is None or check.chi2 is None:
            continue
        left = "none to explain" if check.unexplained is None else f"{check.unexplained:.1%}"
        rows.append(
            Row(
                what=f"{name}: chi-squared, left over, RSP, light",
                value=f"{check.chi2:.2f}, {left}, {check.rsp:.3f}, {provenance.quality_flag}",
            )
        )
        rows += [Row(what=f"  {reason}", value="") for reason in provenance.quality_reasons]
    return rows


def _range(values: list[float]) -> str:
    return f"{np.median(values):.3f}, {min(values):.3f} to {max(values):.3f}"


class Stopwatch:
    """Adds up the seconds that work in steps takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same work at once, timed."""

        def run(*arguments: Any) -> Any:
            begun = time.perf_counter()
            outcome = finished(function(*arguments))
            self.seconds += time.perf_counter() - begun
            yield from ()
            return outcome

        return run


def main() -> None:
    """Print a row for each model and fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=40)
    parser.add_argument("--reconstructed", type=int, default=12)
    parser.add_argument("--measured", action="store_true", help="real images alone")
    parser.add_argument("--models", nargs="*", default=list(FAULTS))
    arguments = parser.parse_args()
    if arguments.measured:
        print_rows("Real images, reconstructed and imaged again", on_measured())
        return
    print(f"chi-squared: median, 95 % quantile, share beyond the limit of {LIMIT:g}")
    for model in arguments.models:
        print_rows(f"{model}, imaged again", on_truths(model, arguments.fields))
        if model == "phase-2shot":
            print_rows("Draws of the physics, imaged again", on_draws(arguments.fields))
            print_rows("Planes in reversed order", on_orders(arguments.fields))
        if arguments.reconstructed:
            print_rows(
                f"{model}, reconstructed and imaged again",
                on_results(model, arguments.reconstructed),
            )


if __name__ == "__main__":
    main()
