"""``napari-cvdm calibrate``: fit what a model's card says of its spread or of its training.

The factor between spread and error is fitted on pairs with known truth. The training distribution
is that of simulated training fields.
"""

import shlex
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_cvdm.cli import PROGRAM, check_inputs_stay, say_done
from napari_cvdm.cli.evaluate import sampling_of, set_of
from napari_cvdm.cli.options import UsageError
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.evaluation.calibration import (
    DISTRIBUTION_SEED,
    Calibration,
    Scores,
    covered,
    fit_distribution,
    fitted,
    least_fields,
    left_out_coverage,
    scores_by_scale,
    scores_of,
    with_noise_scale,
)
from napari_cvdm.evaluation.pair_sets import CALIBRATION_SEED, EVALUATION_SEED, NAMED, SIMULATION
from napari_cvdm.io import output_folder
from napari_cvdm.io.atomic import LEFTOVERS_BELOW, clear_leftovers, sole_writer
from napari_cvdm.models.checkpoint import (
    CARD,
    WEIGHTS,
    Checkpoint,
    CheckpointError,
    ModelCard,
    write_card,
)
from napari_cvdm.models.registry import load_model, model_folder
from napari_cvdm.training.sources import SEED_STRIDE

DISTRIBUTION_FIELDS, DISTRIBUTION_HELD_OUT = 600, 400


def run_calibrate(arguments: Namespace) -> None:
    """Carry out the command; no card is changed where the input is bad."""
    _check_options(arguments)
    if arguments.distribution:
        _write_distribution(arguments)
        return
    with _card_folder(arguments) as (folder, begun):
        # First: the factor is that of samples with the chosen noise.
        model = rescaled(arguments, begun)
        pairs = set_of(arguments, arguments.set, model.card, CALIBRATION_SEED)
        scores = with_bar(scores_of(pairs, model, sampling_of(arguments)), "calibrating")
        calibration = fitted(scores, arguments.level)
        card = replace(model.card, calibration=calibration.values())
        _write_card(arguments, folder, begun, card)
    say_done(f"{_card_path(arguments)}: {sentence(calibration, scores)}")
    say_done(checked(arguments, model, scores, calibration))


def _check_options(arguments: Namespace) -> None:
    """Raise UsageError for an option of the factor beside --distribution, or the other way."""
    if not arguments.distribution:
        if arguments.held_out is not None:
            raise UsageError("--held-out is for --distribution; leave it out, or add that option.")
        return
    # Each changes the factor alone, so it would have no effect.
    factor_only = {
        "--set": arguments.set != SIMULATION,
        "--noise-scales": arguments.noise_scales is not None,
        "--check": arguments.check is not None,
        "--register": arguments.register,
    }
    for option, given in factor_only.items():
        if given:
            raise UsageError(
                f"{option} is for the factor, and --distribution fits none; leave one of them out."
            )


@contextmanager
def _card_folder(arguments: Namespace) -> Iterator[tuple[Path, Checkpoint]]:
    """The model, and the folder to write its card to: its own, or a new one with its weights.

    A folder that another process calibrates in place is refused.
    """
    source = model_folder(arguments.model)
    if arguments.in_place:
        with sole_writer(source):
            # Those of killed runs; the manifest is written in a folder below.
            clear_leftovers(source, LEFTOVERS_BELOW)
            yield source, load_model(arguments.model)
        return
    model = load_model(arguments.model)
    check_inputs_stay(arguments, [arguments.model])
    with output_folder(arguments.out, arguments.overwrite, sign=CARD) as work:
        shutil.copy(source / WEIGHTS, work / WEIGHTS)  # the card alone is new
        yield work, model


def _write_card(arguments: Namespace, folder: Path, model: Checkpoint, card: ModelCard) -> None:
    """Write a card that was fitted on a model; CheckpointError if the model changed meanwhile."""
    # The model may have changed on the disk during the fit, which takes minutes.
    now = load_model(arguments.model)
    if now is not model and (now.sha256, now.card) != (model.sha256, model.card):
        raise CheckpointError(
            f"{arguments.model}: the model changed while it was calibrated; calibrate it again."
        )
    write_card(folder, card)


def _card_path(arguments: Namespace) -> Path:
    folder = model_folder(arguments.model) if arguments.in_place else Path(arguments.out)
    return folder / CARD


def _write_distribution(arguments: Namespace) -> None:
    fields = DISTRIBUTION_FIELDS if arguments.fields is None else arguments.fields
    held_out = DISTRIBUTION_HELD_OUT if arguments.held_out is None else arguments.held_out
    words = [PROGRAM, "calibrate", arguments.model, "--distribution"]
    words += ["--fields", str(fields), "--held-out", str(held_out)]
    words += ["--seed", str(arguments.seed)] if arguments.seed else []
    words += [] if arguments.field_px is None else ["--field-px", str(arguments.field_px)]
    with _card_folder(arguments) as (folder, model):
        first_seed = DISTRIBUTION_SEED + arguments.seed * SEED_STRIDE
        work = fit_distribution(model.card, fields, held_out, first_seed, arguments.field_px)
        found = with_bar(work, "describing the training")
        # From these anybody can make the same fields again.
        made = {
            "fields": fields,
            "held_out": held_out,
            "first_seed": first_seed,
            "command": shlex.join(words),
        }
        card = replace(model.card, training_distribution={**found.plain(), **made})
        _write_card(arguments, folder, model, card)
    say_done(
        f"{_card_path(arguments)}: {len(found.mean)} statistics of {fields} simulated fields; an "
        f"image farther from them than {found.threshold:.3f} is out of distribution, as 1 % of "
        f"{held_out} others are."
    )


def rescaled(arguments: Namespace, model: Checkpoint) -> Checkpoint:
    """Model with the noise scale of least CRPS, among those that the arguments name.

    The model is returned as it is if they name none.
    """
    if not arguments.noise_scales:
        return model
    pairs = set_of(arguments, arguments.set, model.card, CALIBRATION_SEED)
    work = scores_by_scale(pairs, model, sampling_of(arguments), arguments.noise_scales)
    scores = with_bar(work, "choosing the noise scale")
    for scale, score in scores.items():
        say_done(
            f"noise scale {scale:g}: CRPS {score.crps:.4g}, spread/skill {score.ratio:.2f}, the "
            f"90% interval covers {score.coverage['0.9']:.1%}"
        )
    return with_noise_scale(model, min(scores, key=lambda scale: scores[scale].crps))


def sentence(calibration: Calibration, scores: Scores) -> str:
    """What was fitted, in one sentence."""
    count = scores.left_out
    left_out = f" ({count} more had no pixel that can be trusted)" if count else ""
    return (
        f"{calibration.level:.0%} of the errors are below {calibration.factor:g} times the spread "
        f"of {calibration.samples} samples at {calibration.steps} steps; fitted on "
        f"{calibration.fields} fields{left_out}."
    )


def checked(
    arguments: Namespace, model: Checkpoint, scores: Scores, calibration: Calibration
) -> str:
    """Coverage on fields that the factor was not fitted on.

    They are each field left out in turn, and new fields of a simulation.
    """
    left_out = "too few fields to leave one out."
    if len(scores.fields) > least_fields(calibration.level):
        found = left_out_coverage(scores.fields, calibration.level)
        left_out = f"each field by the factor of the others: {shares(found)}"
    if arguments.set not in NAMED or arguments.check == 0:
        return left_out
    # Measured pairs were all fitted on, and only a simulation makes new ones.
    pairs = set_of(arguments, arguments.set, model.card, EVALUATION_SEED, arguments.check)
    fresh = with_bar(scores_of(pairs, model, sampling_of(arguments)), "checking")
    return (
        f"{left_out}\n{len(fresh.fields)} fields that were not used for fitting: "
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
