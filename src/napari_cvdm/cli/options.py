"""Every command and every option, and nothing heavy.

An option that is not given is absent from the parsed arguments, too. The defaults therefore stand
in one place, `ReconstructionRequest`.
"""

import argparse
import re
import sys
from itertools import takewhile
from typing import Any, NoReturn

from napari_cvdm import __version__

FORMATS = ("bundle", "bioimageio")
KINDS = ("phase", "widefield", "denoising")
# As of `core.request`, which brings numpy; a test compares them.
ALIGNMENTS = ("off", "auto")
SAMPLERS = ("sde-2m", "ode-2m", "ddim", "ancestral")
STEPS = 6
PRECISIONS = ("fp32", "bf16", "auto")
ALPHA_UM3_PER_PG = 0.18  # as of `analysis.measure`, which is heavy
DEFOCUS = "--defocus-um"
# With a decimal comma, too: `number` answers that with advice.
_NUMBER = re.compile(r"[-+]?[.,]?\d[\d.,]*(?:[eE][-+]?\d+)?$")
_DEVICE_HELP = "auto, cpu, cuda:0 or mps (default auto: the best there is)"
_STEPS_HELP = f"network evaluations for each sample (default {STEPS})"
_SAMPLER_HELP = "solver of the reverse process: %(choices)s (default sde-2m)"
_MODEL_HELP = "a shipped model (see napari-cvdm models) or a checkpoint folder"
_SET_HELP = (
    "simulation, dim, other-optics, or a folder with the folders measured/ and truth/ (default "
    "simulation)"
)
_FROM_FILE = "Taken from the file where it states them"
_Group = argparse._ActionsContainer  # parsers and groups; argparse has no public name for both


class UsageError(ValueError):
    """Arguments that do not make a command."""


class Parser(argparse.ArgumentParser):
    """A parser that raises an error of one line, and does not print the usage or exit."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        # An abbreviated DEFOCUS would not be found in `parse_known_args`.
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})
        # As in Python 3.14: before, -1. and -1e0 are taken for options.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but end the plane positions at the first word that is no number.

        An image may follow them: the option and its numbers are moved behind all other words.
        """
        words = sys.argv[1:] if args is None else list(args)
        # After -- no word is an option, so none may be moved there.
        if DEFOCUS in words and "--" not in words:
            first = words.index(DEFOCUS)
            positions = list(takewhile(_NUMBER.match, words[first + 1 :]))
            if positions:
                others = [*words[:first], *words[first + 1 + len(positions) :]]
                words = [*others, DEFOCUS, *positions]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the advice to look at the help."""
        raise UsageError(f"{message.rstrip('.')}. Try {self.prog} --help.")


def number(text: str) -> float:
    """A real number, or the complaint that argparse reports."""
    try:
        return float(text)
    except ValueError:
        advice = (
            f"write {text.replace(',', '.')} with a decimal point"
            if "," in text
            else "give a number such as 0.65"
        )
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; {advice}") from None


def whole(text: str) -> int:
    """A whole number, or the complaint that argparse reports."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number; give one such as 8"
        ) from None


def build_parser() -> Parser:
    """The parser of the whole program; its arguments have `command`."""
    parser = Parser(
        prog="napari-cvdm",
        description=(
            "Super-resolved images and quantitative phase maps, each with how far it can be "
            "trusted."
        ),
        # As `main` returns it.
        epilog=(
            "Exit status: 0 done; 2 bad input, said in one line; 130 interrupted. With 2 and 130 "
            "no result is left behind."
        ),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose, add_options in (
        ("restore", "reconstruct an image, with its posterior spread", _add_restore),
        ("measure", "measure the objects of a result, each number with its interval", _add_measure),
        ("plan", "say what error the next image would have with other settings", _add_plan),
        (
            "models",
            "list the models that ship with this program and the classical baselines, or add a "
            "model to your own",
            _add_models,
        ),
        (
            "demo",
            "reconstruct two sample images with the shipped models, and draw the results",
            _add_demo,
        ),
        ("train", "train the model of a recipe", _add_train),
        ("simulate", "make pairs of simulated images and their truth", _add_simulate),
        ("export", "put a model into one file, to pass it on", _add_export),
        ("evaluate", "measure a model on pairs whose truth is known", _add_evaluate),
        (
            "benchmark",
            "measure all models on all sets of pairs, and go on where an earlier run ended",
            _add_benchmark,
        ),
        (
            "calibrate",
            "fit the factor between spread and error on pairs whose truth is known",
            _add_calibrate,
        ),
    ):
        add_options(_command(commands, name, purpose))
    return parser


def _command(commands: "argparse._SubParsersAction[Parser]", name: str, purpose: str) -> Parser:
    # Options that were not given stay absent: the request has the defaults.
    description = purpose[0].upper() + purpose[1:] + "."
    return commands.add_parser(
        name, help=purpose, description=description, argument_default=argparse.SUPPRESS
    )


def _flag(group: _Group, name: str, meaning: str) -> None:
    # A flag is False, not absent: commands read it without asking.
    group.add_argument(name, action="store_true", default=False, help=meaning)


def _word(group: _Group, name: str, meaning: str, metavar: Any, **more: Any) -> None:
    group.add_argument(name, metavar=metavar, help=meaning, **more)


def _whole(group: _Group, name: str, meaning: str, metavar: Any = "N", **more: Any) -> None:
    _word(group, name, meaning, metavar, type=whole, **more)


def _number(group: _Group, name: str, meaning: str, metavar: Any, **more: Any) -> None:
    _word(group, name, meaning, metavar, type=number, **more)


def _add_out(
    parser: Parser, meaning: str, replaced: str, metavar: str = "DIR", **more: Any
) -> None:
    """Where the result goes, and --overwrite; `replaced` says what that replaces."""
    _word(parser, "--out", meaning, metavar, **{"required": True, **more})
    _flag(parser, "--overwrite", f"replace an older {replaced}")


def _add_result_folder(parser: Parser) -> None:
    replaced = "result in DIR, once the new one is complete"
    _add_out(parser, "folder to make for the results", replaced)


def _add_image2(parser: Parser) -> None:
    meaning = "the other planes, if IMAGE is not a stack of all planes"
    _word(parser, "image2", meaning, "IMAGE2", nargs="*", default=[])
    meaning = "which image of a file with several, counted from 1 (default: the first)"
    _whole(parser, "--series", meaning)


def _add_restore(parser: Parser) -> None:
    meaning = "TIFF, OME-TIFF, ImageJ TIFF, MRC, NPY or OME-Zarr; T, Z and C axes are looped over"
    _word(parser, "image", meaning, "IMAGE")
    _add_image2(parser)
    meaning = (
        "a shipped model or a classical baseline (see napari-cvdm models), or a checkpoint folder"
    )
    _word(parser, "--model", meaning, "NAME_OR_PATH", required=True)
    _add_result_folder(parser)
    _add_sampling(parser.add_argument_group("sampling"))
    _add_optics(parser, _FROM_FILE)
    extra = parser.add_argument_group("further results")
    meaning = "also write gamma.ome.tif and beta.ome.tif at K times (default 0)"
    _whole(extra, "--schedule-points", meaning, "K")
    meaning = (
        "reconstruct this part of the image only, in pixels of the input; BOTTOM and RIGHT are "
        "the first ones outside"
    )
    _whole(extra, "--region", meaning, ("TOP", "BOTTOM", "LEFT", "RIGHT"), nargs=4)
    # No `_flag`: it is absent unless given, as the other options of a request.
    meaning = "also write every posterior sample to samples.ome.tif"
    extra.add_argument("--keep-samples", action="store_true", help=meaning)
    blocks = parser.add_argument_group(
        "larger than memory",
        "Where DIR ends in .ome.zarr, block by block; a job that was stopped goes on.",
    )
    meaning = "side of what is written at once, a multiple of 64 (default 1024)"
    _whole(blocks, "--block", meaning, "PX")
    meaning = "pixels around it that the networks see, a multiple of 64 (default 128)"
    _whole(blocks, "--halo", meaning, "PX")
    meaning = (
        "on a cluster: local:N for N processes here, or tcp://host:port of a scheduler of dask"
    )
    _word(blocks, "--scheduler", meaning, "WHERE")


def _add_sampling(group: _Group) -> None:
    _whole(group, "--samples", "posterior samples (default 8)")
    _whole(group, "--steps", _STEPS_HELP)
    meaning = "chooses the noise; the same seed gives the same result (default 0)"
    _whole(group, "--seed", meaning)
    _word(group, "--sampler", _SAMPLER_HELP, "NAME", choices=SAMPLERS)
    group.add_argument("--device", help=_DEVICE_HELP)
    meaning = (
        "of the network: fp32, bf16 for speed, or auto: bf16 where the device has arithmetic for "
        "it (default fp32)"
    )
    _word(group, "--precision", meaning, "NAME", choices=PRECISIONS)
    meaning = (
        "side of a tile; changes memory and time, and the pixels only by rounding (default 512)"
    )
    _whole(group, "--tile", meaning, "PX")


def _add_planes(group: _Group) -> None:
    meaning = "position of each plane, in their order, + toward the objective: -1 1"
    _number(group, DEFOCUS, meaning, ("Z1 Z2", "Z3"), nargs="+")  # shown as Z1 Z2 [Z3 ...]
    meaning = (
        "numerical aperture of the illumination (phase), at most the index; left out, the light is "
        "taken for coherent"
    )
    _number(group, "--condenser-na", meaning, "NA")


def _add_optics(parser: Parser, purpose: str, *, background: bool = True) -> None:
    group = parser.add_argument_group("optics", f"{purpose}; in micrometres.")
    _number(group, "--pixel-um", "pixel size in the sample", "P")
    meaning = "vacuum wavelength: illumination for phase, emission for fluorescence"
    _number(group, "--wavelength-um", meaning, "L")
    _add_planes(group)
    meaning = "refractive index of the medium: air 1.0, water 1.333, oil 1.518"
    _number(group, "--medium-index", meaning, "N")
    _number(group, "--na", "numerical aperture of the objective, at most the index", "NA")
    if not background:
        return
    meaning = (
        "blank-field (dark) level: auto estimates it, none says that it is divided out (zero) "
        "already, FILE is an image of it (default auto)"
    )
    _word(group, "--background", meaning, "auto|none|FILE")
    meaning = (
        "measured point spread function of the microscope (fluorescence): one plane, or a stack in "
        "focus"
    )
    _word(group, "--psf", meaning, "FILE")
    meaning = (
        "auto looks for a shift between the outermost planes and reports it; nothing is moved "
        "(default off)"
    )
    _word(group, "--align", meaning, "off|auto", choices=ALIGNMENTS)


def _add_measure(parser: Parser) -> None:
    meaning = "a folder that napari-cvdm restore made, with --keep-samples"
    _word(parser, "result", meaning, "DIR")
    _add_out(parser, "CSV table to make", "FILE", "FILE")
    meaning = (
        "image of labels on the grid of the result (default: all that stands out, with its outline "
        "found in every sample)"
    )
    _word(parser, "--mask", meaning, "FILE", default=None)
    meaning = "specific refraction increment of a phase in um^3/pg (default %(default)s)"
    _number(parser, "--alpha", meaning, "A", default=ALPHA_UM3_PER_PG)
    meaning = "take the median outside all objects off (a phase always is relative to it)"
    _flag(parser, "--above-background", meaning)


def _add_plan(parser: Parser) -> None:
    _word(parser, "image", "the present image, as for restore", "IMAGE")
    _add_image2(parser)
    _word(parser, "--model", _MODEL_HELP, "NAME_OR_PATH", required=True)
    _add_out(parser, "CSV table to make", "FILE", "FILE", required=False, default=None)
    parser.add_argument("--device", help=_DEVICE_HELP)
    _add_optics(parser, _FROM_FILE)


def _add_models(parser: Parser) -> None:
    _flag(parser, "--json", "every card in full, as JSON")
    actions = parser.add_subparsers(dest="action", metavar="list|add")
    _command(actions, "list", "list the models, as without an action")
    add = _command(actions, "add", "put a model into your folder of models")
    meaning = (
        "a bundle that napari-cvdm export made, or a checkpoint folder; nothing in it is executed"
    )
    _word(add, "model", meaning, "FILE_OR_FOLDER")
    meaning = "your folder of models, the one that napari's preference Model folder names"
    _word(add, "--to", meaning, "DIR", required=True)
    _flag(add, "--overwrite", "replace a model of the same name, once the new one is complete")


def _add_demo(parser: Parser) -> None:
    _add_result_folder(parser)
    _whole(parser, "--samples", "posterior samples (default 16)", default=16)


def _add_export(parser: Parser) -> None:
    _word(parser, "model", _MODEL_HELP, "MODEL")
    meaning = "bundle: the .zip file to make; bioimageio: the folder to make for two .zip files"
    _add_out(parser, meaning, "export at PATH, once the new one is complete", "PATH")
    meaning = (
        "bundle, for napari-cvdm models add; or bioimageio, packages of the BioImage Model Zoo "
        "(default bundle)"
    )
    _word(parser, "--format", meaning, "NAME", choices=FORMATS, default="bundle")
    meaning = "who answers for a bioimageio package (default: the contributors to napari-cvdm)"
    _word(parser, "--author", meaning, "NAME")
    fixed = parser.add_argument_group(
        "fixed in a bioimageio package",
        "What another program cannot ask for. Optics in micrometres.",
    )
    _whole(fixed, "--samples", "posterior samples behind mean and std (default 8)")
    _whole(fixed, "--steps", _STEPS_HELP)
    _whole(fixed, "--seed", "chooses the noise (default 0)")
    _number(fixed, "--pixel-um", "pixel size in the sample", "P")
    _number(fixed, "--wavelength-um", "vacuum wavelength of the illumination (phase)", "L")
    _add_planes(fixed)
    _number(fixed, "--medium-index", "refractive index of the medium (phase)", "N")


def _add_train(parser: Parser) -> None:
    _word(parser, "recipe", "a TOML file, see the folder recipes/", "RECIPE")
    _word(parser, "--out", "folder for checkpoint, log and card", "DIR", required=True)
    _flag(parser, "--resume", "continue the training that DIR holds")
    parser.add_argument("--device", help=_DEVICE_HELP)


def _add_simulate(parser: Parser) -> None:
    meaning = (
        "two to five defocused planes, one fluorescence image and a sharper one, or one with and "
        "without noise"
    )
    _word(parser, "kind", meaning, "|".join(KINDS), choices=KINDS)
    _add_result_folder(parser)
    _whole(parser, "--count", "pairs to make (default 1)", default=1)
    meaning = "seed of the first pair, one more for each next (default 0)"
    _whole(parser, "--seed", meaning, default=0)
    meaning = "take the ranges of optics and noise from this recipe"
    _word(parser, "--recipe", meaning, "FILE", default=None)
    meaning = (
        "invert (phase) or deconvolve (fluorescence) every field for a training; those that DIR "
        "has already are kept"
    )
    _flag(parser, "--solved", meaning)


def _add_pairs(parser: Parser, samples: int, fields: str = "default 32") -> None:
    """Which pairs a model is evaluated on, and how their posteriors are sampled."""
    # None leaves the number to the set, or to the distribution, which needs more.
    sets = parser.add_argument_group("pairs")
    _whole(sets, "--fields", f"simulated fields of a set ({fields})", default=None)
    meaning = "side of the simulated fields (default: as in training)"
    _whole(sets, "--field-px", meaning, "PX", default=None)
    meaning = "chooses the simulated fields; training never meets them (default 0)"
    _whole(sets, "--seed", meaning, default=0)
    _flag(sets, "--register", "move the truth of a measured pair onto its image first")
    sampling = parser.add_argument_group("sampling")
    _whole(sampling, "--samples", "posterior samples (default %(default)s)", default=samples)
    _whole(sampling, "--steps", _STEPS_HELP, default=STEPS)
    _word(sampling, "--sampler", _SAMPLER_HELP, "NAME", choices=SAMPLERS, default="sde-2m")
    sampling.add_argument("--device", default="auto", help=_DEVICE_HELP)
    _add_optics(parser, "Of measured pairs, where their files do not say", background=False)


def _add_evaluate(parser: Parser) -> None:
    _add_model_and_set(parser)
    _add_result_folder(parser)
    _add_pairs(parser, samples=32)


def _add_model_and_set(parser: Parser) -> None:
    _word(parser, "model", _MODEL_HELP, "MODEL")
    _word(parser, "--set", _SET_HELP, "NAME_OR_DIR", default="simulation")


def _add_benchmark(parser: Parser) -> None:
    meaning = "folder for the results; what it holds already is not computed again"
    _word(parser, "--out", meaning, "DIR", required=True)
    _word(parser, "--models", "default: all that ship", "MODEL", nargs="+", default=None)
    meaning = _SET_HELP.replace("simulation)", "all three)")
    # As of `evaluation.pair_sets`, which brings torch.
    every = ["simulation", "dim", "other-optics"]
    _word(parser, "--sets", meaning, "NAME_OR_DIR", nargs="+", default=every)
    _add_pairs(parser, samples=32)


def _add_calibrate(parser: Parser) -> None:
    _add_model_and_set(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    _word(where, "--out", "folder to make for the calibrated model", "DIR", default=None)
    meaning = "write into the card of MODEL; its weights stay as they are"
    _flag(where, "--in-place", meaning)
    _flag(parser, "--overwrite", "replace an older model in DIR, once the new one is complete")
    meaning = "share of the errors to be below factor times spread (default 0.9)"
    _number(parser, "--level", meaning, "P", default=0.9)
    meaning = (
        "first choose, of these factors for the noise that the sampler adds at each step, the one "
        "of least CRPS (default: that of the model)"
    )
    _number(parser, "--noise-scales", meaning, "S", nargs="+", default=None)
    meaning = "simulated fields to check the factor on; 0 for none (default: as --fields)"
    _whole(parser, "--check", meaning, default=None)
    meaning = (
        "instead of the factor, fit what the simulated training fields of MODEL look like, by "
        "which later images are found to be out of distribution"
    )
    _flag(parser, "--distribution", meaning)
    meaning = "simulated fields that set the threshold of --distribution (default 400)"
    _whole(parser, "--held-out", meaning, default=None)
    _add_pairs(parser, samples=16, fields="default 32; 600 with --distribution")
