"""``napari-cvdm models``: list the shipped models, their purpose and their limits.

``models add`` adds a model to your own. ``napari-cvdm export`` makes one file of a model, or
packages of the BioImage Model Zoo.
"""

import json
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, fields

from napari_cvdm.baselines import BASELINES, Baseline
from napari_cvdm.cli import check_inputs_stay, say_done
from napari_cvdm.cli.options import UsageError
from napari_cvdm.models.bundle import add_model, write_bundle
from napari_cvdm.models.checkpoint import WEIGHTS, ModelCard
from napari_cvdm.models.registry import model_folder, shipped_models

WIDTH = 110
INDENT = 14
BASELINES_HEADLINE = (
    "baselines: classical methods for comparison; each gives a single answer without a spread"
)


def run_models(arguments: Namespace) -> None:
    """Print every card, in short or (``--json``) in full, or add a model.

    The classical methods follow the models. ``--json`` has the cards of models only. Nothing is
    added where the input is bad.
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
        cards = {name: {**asdict(card), "bytes": size} for name, card, size in found}
        say_done(json.dumps(cards, indent=2))
        return
    models = [description(*entry) for entry in found] or [
        "No model came with this installation; make one with napari-cvdm train."
    ]
    baselines = [_baseline_description(method) for method in BASELINES.values()]
    say_done("\n\n".join([*models, BASELINES_HEADLINE, *baselines]))


def run_export(arguments: Namespace) -> None:
    """Carry out ``napari-cvdm export``; no file is left behind where the input is bad."""
    # They bring simulation and reconstruction, which the list of models need not wait for.
    from napari_cvdm.export.sampler import PackageSettings
    from napari_cvdm.export.zoo import write_bioimageio

    # What was not given is absent: the packages have the defaults.
    given = vars(arguments)
    author = {"author": given["author"]} if "author" in given else {}
    # A bundle is the model as it is, so these options would have no effect.
    if arguments.format == "bundle":
        needless = [*author, *(one.name for one in fields(PackageSettings) if one.name in given)]
        if needless:
            option = "--" + needless[0].replace("_", "-")
            raise UsageError(
                f"{option} is fixed in a bioimageio package only; leave it out, or add --format "
                "bioimageio."
            )
        folder = model_folder(arguments.model)
        path = write_bundle(folder, arguments.out, overwrite=arguments.overwrite)
        say_done(
            f"{path}: the model in one file; add it elsewhere with napari-cvdm models add "
            f"{path.name} --to DIR"
        )
        return
    check_inputs_stay(arguments, [arguments.model])
    paths = write_bioimageio(
        model_folder(arguments.model),
        arguments.out,
        PackageSettings.of(given),
        overwrite=arguments.overwrite,
        **author,
    )
    say_done(
        f"{arguments.out}: {' and '.join(path.name for path in paths)}, tested with bioimageio.core"
    )


def description(name: str, card: ModelCard, size: int) -> str:
    """A card as text: a headline, and one paragraph for each of its entries.

    `name` is what ``--model`` takes; the weights have `size` bytes.
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
    return _paragraphs(f"{name}: {card.title}", entries)


def _baseline_description(method: Baseline) -> str:
    card, default = method.card, getattr(method, method.parameter)
    entries = {
        "task": f"{card.inputs} -> {card.unit}",
        "parameter": f"{method.parameter} {default:g}; another with --model {card.name}:VALUE",
        "needs": ", ".join(method.needed_optics),
        "resolution": card.resolution,
        "source": method.source,
        "limits": " ".join(card.limits),
    }
    return _paragraphs(f"{card.name}: {card.title}", entries)


def interval(card: ModelCard) -> str:
    """What the card says about the spread, in words."""
    # An empty mapping: the model was never calibrated.
    fit = card.calibration
    if not fit:
        return (
            "not calibrated: nobody has compared its spread with its errors; see napari-cvdm "
            "calibrate"
        )
    scale = f", noise scale {card.noise_scale:g}" if card.noise_scale != 1 else ""
    return (
        f"{fit['level']:.0%} of the errors are below {fit['factor']:g} times the spread of "
        f"{fit['samples']} samples at {fit['steps']} steps{scale}; fitted on {fit['fields']} "
        f"fields ({fit['set']})"
    )


def _paragraphs(headline: str, entries: Mapping[str, str]) -> str:
    lines = [headline]
    for label, text in entries.items():
        first, others = f"  {label}".ljust(INDENT), " " * INDENT
        lines.append(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=others))
    return "\n".join(lines)
