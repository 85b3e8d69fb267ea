"""``napari-cvdm calibrate``: fit the factor between spread and error.

The factor is fitted on pairs with known truth, and is written to the card of the model.
"""

import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.pairs import sampling_of, set_of
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.evaluation.calibration import (
    Calibration,
    Scores,
    covered,
    fitted,
    least_fields,
    left_out_coverage,
    scores_by_scale,
    scores_of,
    with_noise_scale,
)
from napari_cvdm.evaluation.pair_sets import CALIBRATION_SEED, EVALUATION_SEED, NAMED
from napari_cvdm.io import output_folder
from napari_cvdm.models.checkpoint import CARD, WEIGHTS, Checkpoint, write_card
from napari_cvdm.models.registry import load_model, model_folder


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm calibrate``.

    Parameters
    ----------
    arguments : Namespace

    Raises
    ------
    ValueError, OSError
        Bad input, in words; no card is changed then.
    """
    model = load_model(arguments.model)
    if arguments.in_place:
        model = rescaled(arguments, model)
        scores, calibration = calibrated(arguments, model)
        folder = model_folder(arguments.model)
        write_card(folder, replace(model.card, calibration=calibration.values()))
    else:
        check_inputs_stay(arguments, [arguments.model])
        with output_folder(arguments.out, arguments.overwrite, sign=CARD) as work:
            model = rescaled(arguments, model)
            scores, calibration = calibrated(arguments, model)
            shutil.copy(model_folder(arguments.model) / WEIGHTS, work / WEIGHTS)
            write_card(work, replace(model.card, calibration=calibration.values()))
        folder = Path(arguments.out)
    say_done(f"{folder / CARD}: {sentence(calibration, scores)}")
    say_done(checked(arguments, model, scores, calibration))


def rescaled(arguments: Namespace, model: Checkpoint) -> Checkpoint:
    """Model with the noise scale of least CRPS, among those that the arguments name.

    The model is returned as it is if they name none.
    """
    if not arguments.noise_scales:
        return model
    pairs = set_of(arguments, arguments.set, model.card, CALIBRATION_SEED)
    scores = with_bar(
        scores_by_scale(pairs, model, sampling_of(arguments), arguments.noise_scales),
        "choosing the noise scale",
    )
    for scale, score in scores.items():
        say_done(
            f"noise scale {scale:g}: CRPS {score.crps:.4g}, spread/skill {score.ratio:.2f}, the "
            f"90% interval covers {score.coverage['0.9']:.1%}"
        )
    return with_noise_scale(model, min(scores, key=lambda scale: scores[scale].crps))


def calibrated(arguments: Namespace, model: Checkpoint) -> tuple[Scores, Calibration]:
    """The scores of the set that the arguments name, and the calibration fitted on them."""
    pairs = set_of(arguments, arguments.set, model.card, CALIBRATION_SEED)
    scores = with_bar(scores_of(pairs, model, sampling_of(arguments)), "calibrating")
    return scores, fitted(scores, arguments.level)


def sentence(calibration: Calibration, scores: Scores) -> str:
    """What was fitted, in one sentence."""
    left_out = (
        f" ({scores.left_out} more had no pixel that can be trusted)" if scores.left_out else ""
    )
    interval = (
        f"{calibration.level:.0%} of the errors are below {calibration.factor:g} times the spread"
    )
    return (
        f"{interval} of {calibration.samples} samples at {calibration.steps} steps; fitted on "
        f"{calibration.fields} fields{left_out}."
    )


def checked(
    arguments: Namespace, model: Checkpoint, scores: Scores, calibration: Calibration
) -> str:
    """Coverage on fields that the factor was not fitted on.

    They are each field left out in turn, and new fields of a simulation.
    """
    said = "too few fields to leave one out."
    if len(scores.fields) > least_fields(calibration.level):
        said = (
            "each field by the factor of the others: "
            f"{shares(left_out_coverage(scores.fields, calibration.level))}"
        )
    count = arguments.fields if arguments.check is None else arguments.check
    if arguments.set not in NAMED or not count:
        return said
    pairs = set_of(arguments, arguments.set, model.card, EVALUATION_SEED, count)
    fresh = with_bar(scores_of(pairs, model, sampling_of(arguments)), "checking")
    return (
        f"{said}\n{len(fresh.fields)} fields that were not used for fitting: "
        f"{shares(covered(fresh.fields, calibration.factor))}"
    )


def shares(coverage: np.ndarray) -> str:
    """Mean coverage over fields with its standard error, and how far single fields are from it."""
    error = coverage.std(ddof=1) / np.sqrt(len(coverage)) if len(coverage) > 1 else np.nan
    low, middle, high = np.quantile(coverage, (0.1, 0.5, 0.9))
    return (
        f"coverage {coverage.mean():.1%} (standard error {error:.1%}); of single fields {low:.1%}, "
        f"{middle:.1%}, {high:.1%} (quantiles 0.1, 0.5, 0.9)."
    )
