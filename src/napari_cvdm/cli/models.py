"""``napari-cvdm models``: list the shipped models, their purpose and their limits.

``models add`` adds a model to your own.
"""

import json
import textwrap
from argparse import Namespace
from dataclasses import asdict

from napari_cvdm.baselines import BASELINES, Baseline
from napari_cvdm.cli import say_done
from napari_cvdm.models.bundle import add_model
from napari_cvdm.models.checkpoint import WEIGHTS, ModelCard
from napari_cvdm.models.registry import model_folder, shipped_models

WIDTH = 110
INDENT = 14
BASELINES_HEADLINE = (
    "baselines: classical methods for comparison; each gives a single answer without a spread"
)


def run(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm models``.

    Every card is printed, in short or (``--json``) in full, or a model is added. The classical
    methods follow the models. ``--json`` has the cards of models only.

    Raises
    ------
    ValueError, OSError
        What was to be added is no model, or may not be written; nothing is added then.
    """
    if arguments.action == "add":
        folder = add_model(arguments.model, arguments.to, overwrite=arguments.overwrite)
        say_done(f"{folder}: the model {folder.name}; use it with --model {folder}")
        return
    found = [
        (name, card, (model_folder(name) / WEIGHTS).stat().st_size)
        for name, card in shipped_models()
    ]
    if arguments.json:
        say_done(
            json.dumps(
                {name: {**asdict(card), "bytes": size} for name, card, size in found}, indent=2
            )
        )
    else:
        models = [description(*entry) for entry in found] or [
            "No model came with this installation; make one with napari-cvdm train."
        ]
        say_done(
            "\n\n".join(
                [
                    *models,
                    BASELINES_HEADLINE,
                    *(baseline_description(method) for method in BASELINES.values()),
                ]
            )
        )


def description(name: str, card: ModelCard, size: int) -> str:
    """A card as text.

    Parameters
    ----------
    name : str
        What ``--model`` takes.
    card : ModelCard
    size : int
        Of the weights [bytes].

    Returns
    -------
    str
        A headline and one paragraph for each of task, size, optics, resolution, licence and limits.
    """
    optics = [f"{key} {low:g} to {high:g}" for key, (low, high) in card.optics.items()]
    entries = {
        "task": f"{card.inputs} -> {card.unit}",
        "size": f"{size / 1e6:.1f} MB",
        "optics": ", ".join(optics) or "any",
        "resolution": card.resolution,
        "interval": interval(card),
        "licence": card.licence,
        "limits": " ".join(card.limits) or "none stated",
    }
    return "\n".join(
        [f"{name}: {card.title}", *(_paragraph(label, text) for label, text in entries.items())]
    )


def baseline_description(method: Baseline) -> str:
    """Describe a classical method as text.

    The text is a headline and one paragraph for each of task, parameter, optics, resolution, source
    and limits.
    """
    card, default = method.card, getattr(method, method.parameter)
    entries = {
        "task": f"{card.inputs} -> {card.unit}",
        "parameter": f"{method.parameter} {default:g}; another with --model {card.name}:VALUE",
        "needs": ", ".join(method.needed_optics),
        "resolution": card.resolution,
        "source": method.source,
        "limits": " ".join(card.limits),
    }
    return "\n".join(
        [
            f"{card.name}: {card.title}",
            *(_paragraph(label, text) for label, text in entries.items()),
        ]
    )


def interval(card: ModelCard) -> str:
    """What the card says about the spread, in words."""
    said = card.calibration
    if not said:
        return (
            "not calibrated: nobody has compared its spread with its errors; see napari-cvdm "
            "calibrate"
        )
    sampled = f"{said['samples']} samples at {said['steps']} steps" + (
        f", noise scale {card.noise_scale:g}" if card.noise_scale != 1 else ""
    )
    return (
        f"{said['level']:.0%} of the errors are below {said['factor']:g} times the spread of "
        f"{sampled}; fitted on {said['fields']} fields ({said['set']})"
    )


def _paragraph(label: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=f"  {label}".ljust(INDENT), subsequent_indent=" " * INDENT
    )
