"""Every command and every option, and nothing heavy.

An option that is not given is absent from the parsed arguments, too. The defaults therefore stand
in one place, `ReconstructionRequest`.
"""

import argparse

from napari_cvdm import __version__
from napari_cvdm.cli.parser import DEFOCUS, Parser, number, whole

FORMATS = ("bundle", "bioimageio")
ALIGNMENTS = ("off", "auto")
SAMPLERS = ("sde-2m", "ode-2m", "ddim", "ancestral")
STEPS = 6
PRECISIONS = ("fp32", "bf16", "auto")
_PRECISION_HELP = (
    "of the network: fp32, bf16 for speed, or auto: bf16 where the device has arithmetic for it "
    "(default fp32)"
)
_DEVICE_HELP = "auto, cpu, cuda:0 or mps (default auto: the best there is)"


def build_parser() -> Parser:
    """The parser of the whole program.

    Returns
    -------
    Parser
        Its arguments have `command`: restore, models, demo, train, simulate, export, evaluate,
        benchmark or calibrate.
    """
    parser = Parser(
        prog="napari-cvdm",
        description=(
            "Super-resolved images and quantitative phase maps, each with how far it can be "
            "trusted."
        ),
        epilog=(
            "Exit status: 0 done; 2 bad input, said in one line; 130 interrupted. With 2 and 130 "
            "no result is left behind."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_restore(_command(commands, "restore", "reconstruct an image, with its posterior spread"))
    _add_models(
        _command(
            commands,
            "models",
            (
                "list the models that ship with this program and the classical baselines, or add a "
                "model to your own"
            ),
        )
    )
    demo = _command(
        commands,
        "demo",
        "reconstruct two sample images with the shipped models, and draw the results",
    )
    _add_result_folder(demo)
    demo.add_argument(
        "--samples", type=whole, default=16, metavar="N", help="posterior samples (default 16)"
    )
    _add_train(_command(commands, "train", "train the model of a recipe"))
    _add_simulate(_command(commands, "simulate", "make pairs of simulated images and their truth"))
    _add_export(_command(commands, "export", "put a model into one file, to pass it on"))
    _add_evaluate(_command(commands, "evaluate", "measure a model on pairs whose truth is known"))
    _add_benchmark(
        _command(
            commands,
            "benchmark",
            "measure all models on all sets of pairs, and go on where an earlier run ended",
        )
    )
    _add_calibrate(
        _command(
            commands,
            "calibrate",
            "fit the factor between spread and error on pairs whose truth is known",
        )
    )
    return parser


def _command(commands: "argparse._SubParsersAction[Parser]", name: str, purpose: str) -> Parser:
    description = purpose[0].upper() + purpose[1:] + "."
    return commands.add_parser(
        name,
        help=purpose,
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )


def _add_result_folder(parser: Parser) -> None:
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to make for the results"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        default=False,
        help="replace an older result in DIR, once the new one is complete",
    )


def _add_restore(parser: Parser) -> None:
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="TIFF, OME-TIFF, ImageJ TIFF, MRC, NPY or OME-Zarr; T, Z and C axes are looped over",
    )
    parser.add_argument(
        "image2",
        metavar="IMAGE2",
        nargs="*",
        default=[],
        help="the other planes, if IMAGE is not a stack of all planes",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME_OR_PATH",
        help=(
            "a shipped model or a classical baseline (see napari-cvdm models), or a checkpoint "
            "folder"
        ),
    )
    _add_result_folder(parser)
    _add_sampling(parser.add_argument_group("sampling"))
    _add_optics(
        parser.add_argument_group(
            "optics", "Taken from the file where it states them; in micrometres."
        )
    )
    extra = parser.add_argument_group("further results")
    extra.add_argument(
        "--schedule-points",
        type=whole,
        metavar="K",
        help="also write gamma.ome.tif and beta.ome.tif at K times (default 0)",
    )
    extra.add_argument(
        "--region",
        type=whole,
        nargs=4,
        metavar=("TOP", "BOTTOM", "LEFT", "RIGHT"),
        help=(
            "reconstruct this part of the image only, in pixels of the input; BOTTOM and RIGHT are "
            "the first ones outside"
        ),
    )
    extra.add_argument(
        "--keep-samples",
        action="store_true",
        help="also write every posterior sample to samples.ome.tif",
    )
    _add_blocks(
        parser.add_argument_group(
            "larger than memory",
            "Where DIR ends in .ome.zarr, block by block; a job that was stopped goes on.",
        )
    )


def _add_blocks(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--block",
        type=whole,
        metavar="PX",
        help="side of what is written at once, a multiple of 64 (default 1024)",
    )
    group.add_argument(
        "--halo",
        type=whole,
        metavar="PX",
        help="pixels around it that the networks see, a multiple of 64 (default 128)",
    )
    group.add_argument(
        "--scheduler",
        metavar="WHERE",
        help=(
            "on a cluster: local:N for N processes here, or tcp://host:port of a scheduler of dask"
        ),
    )


def _add_sampling(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--samples", type=whole, metavar="N", help="posterior samples (default 8)")
    group.add_argument(
        "--steps",
        type=whole,
        metavar="N",
        help=f"network evaluations for each sample (default {STEPS})",
    )
    group.add_argument(
        "--seed",
        type=whole,
        metavar="N",
        help="chooses the noise; the same seed gives the same result (default 0)",
    )
    group.add_argument(
        "--sampler",
        choices=SAMPLERS,
        help="solver of the reverse process: %(choices)s (default sde-2m)",
        metavar="NAME",
    )
    group.add_argument("--device", help=_DEVICE_HELP)
    group.add_argument("--precision", choices=PRECISIONS, help=_PRECISION_HELP, metavar="NAME")
    group.add_argument(
        "--tile",
        type=whole,
        metavar="PX",
        help=(
            "side of a tile; changes memory and time, and the pixels only by rounding (default 512)"
        ),
    )


def _add_planes(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        DEFOCUS,
        type=number,
        nargs="+",
        metavar=("Z1 Z2", "Z3"),
        help="position of each plane, in their order, + toward the objective: -1 1",
    )
    condenser = (
        "numerical aperture of the illumination (phase), at most the index; left out, the light is "
        "taken for coherent"
    )
    group.add_argument("--condenser-na", type=number, metavar="NA", help=condenser)


def _add_optics(group: "argparse._ArgumentGroup", *, background: bool = True) -> None:
    group.add_argument("--pixel-um", type=number, metavar="P", help="pixel size in the sample")
    group.add_argument(
        "--wavelength-um",
        type=number,
        metavar="L",
        help="vacuum wavelength: illumination for phase, emission for fluorescence",
    )
    _add_planes(group)
    group.add_argument(
        "--medium-index",
        type=number,
        metavar="N",
        help="refractive index of the medium: air 1.0, water 1.333, oil 1.518",
    )
    group.add_argument(
        "--na",
        type=number,
        metavar="NA",
        help="numerical aperture of the objective, at most the index",
    )
    if not background:
        return
    group.add_argument(
        "--background",
        metavar="auto|none|FILE",
        help=(
            "blank-field (dark) level: auto estimates it, none says that it is divided out (zero) "
            "already, FILE is an image of it (default auto)"
        ),
    )
    group.add_argument(
        "--psf",
        metavar="FILE",
        help=(
            "measured point spread function of the microscope (fluorescence): one plane, or a "
            "stack in focus"
        ),
    )
    group.add_argument(
        "--align",
        choices=ALIGNMENTS,
        metavar="off|auto",
        help=(
            "auto looks for a shift between the outermost planes and reports it; nothing is moved "
            "(default off)"
        ),
    )


def _add_models(parser: Parser) -> None:
    parser.add_argument(
        "--json", action="store_true", default=False, help="every card in full, as JSON"
    )
    actions = parser.add_subparsers(dest="action", metavar="add")
    add = _command(actions, "add", "put a model into your folder of models")
    add.add_argument(
        "model",
        metavar="FILE_OR_FOLDER",
        help=(
            "a bundle that napari-cvdm export made, or a checkpoint folder; nothing in it is "
            "executed"
        ),
    )
    add.add_argument(
        "--to",
        required=True,
        metavar="DIR",
        help="your folder of models, the one that napari's preference Model folder names",
    )
    add.add_argument(
        "--overwrite",
        action="store_true",
        default=False,
        help="replace a model of the same name, once the new one is complete",
    )


def _add_export(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a shipped model (see napari-cvdm models) or a checkpoint folder",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="bundle: the .zip file to make; bioimageio: the folder to make for two .zip files",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        default=False,
        help="replace an older export at PATH, once the new one is complete",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="bundle",
        metavar="NAME",
        help=(
            "bundle, for napari-cvdm models add; or bioimageio, packages of the BioImage Model Zoo "
            "(default bundle)"
        ),
    )
    parser.add_argument(
        "--author",
        metavar="NAME",
        help="who answers for a bioimageio package (default: the contributors to napari-cvdm)",
    )
    fixed = parser.add_argument_group(
        "fixed in a bioimageio package",
        "What another program cannot ask for. Optics in micrometres.",
    )
    fixed.add_argument(
        "--samples",
        type=whole,
        metavar="N",
        help="posterior samples behind mean and std (default 8)",
    )
    fixed.add_argument(
        "--steps",
        type=whole,
        metavar="N",
        help=f"network evaluations for each sample (default {STEPS})",
    )
    fixed.add_argument("--seed", type=whole, metavar="N", help="chooses the noise (default 0)")
    fixed.add_argument("--pixel-um", type=number, metavar="P", help="pixel size in the sample")
    fixed.add_argument(
        "--wavelength-um",
        type=number,
        metavar="L",
        help="vacuum wavelength of the illumination (phase)",
    )
    _add_planes(fixed)
    fixed.add_argument(
        "--medium-index", type=number, metavar="N", help="refractive index of the medium (phase)"
    )


def _add_train(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, see the folder recipes/")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for checkpoint, log and card"
    )
    parser.add_argument(
        "--resume", action="store_true", default=False, help="continue the training that DIR holds"
    )
    parser.add_argument("--device", help=_DEVICE_HELP)


def _add_simulate(parser: Parser) -> None:
    kinds, said = (
        ("phase", "widefield", "denoising"),
        (
            "two to five defocused planes, one fluorescence image and a sharper one, or one with "
            "and without noise"
        ),
    )
    parser.add_argument("kind", choices=kinds, metavar="|".join(kinds), help=said)
    _add_result_folder(parser)
    parser.add_argument(
        "--count", type=whole, default=1, metavar="N", help="pairs to make (default 1)"
    )
    parser.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="N",
        help="seed of the first pair, one more for each next (default 0)",
    )
    parser.add_argument(
        "--recipe",
        default=None,
        metavar="FILE",
        help="take the ranges of optics and noise from this recipe",
    )
    said = (
        "invert (phase) or deconvolve (fluorescence) every field for a training; those that DIR "
        "has already are kept"
    )
    parser.add_argument("--solved", action="store_true", default=False, help=said)


def _add_pairs(parser: Parser, samples: int) -> None:
    """Which pairs a model is judged on, and how their posteriors are sampled."""
    sets = parser.add_argument_group("pairs")
    sets.add_argument(
        "--fields",
        type=whole,
        default=32,
        metavar="N",
        help="simulated fields of a set (default %(default)s)",
    )
    sets.add_argument(
        "--field-px",
        type=whole,
        default=None,
        metavar="PX",
        help="side of the simulated fields (default: as in training)",
    )
    sets.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="N",
        help="chooses the simulated fields; training never meets them (default 0)",
    )
    sets.add_argument(
        "--register",
        action="store_true",
        default=False,
        help="move the truth of a measured pair onto its image first",
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--samples",
        type=whole,
        default=samples,
        metavar="N",
        help="posterior samples (default %(default)s)",
    )
    sampling.add_argument(
        "--steps",
        type=whole,
        default=STEPS,
        metavar="N",
        help="network evaluations for each sample (default %(default)s)",
    )
    sampling.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default="sde-2m",
        help="solver of the reverse process: %(choices)s (default sde-2m)",
        metavar="NAME",
    )
    sampling.add_argument("--device", default="auto", help=_DEVICE_HELP)
    _add_optics(
        parser.add_argument_group(
            "optics", "Of measured pairs, where their files do not say; in micrometres."
        ),
        background=False,
    )


_SET_HELP = (
    "simulation, dim, other-optics, or a folder with the folders measured/ and truth/ (default "
    "simulation)"
)


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a shipped model (see napari-cvdm models) or a checkpoint folder",
    )
    parser.add_argument("--set", default="simulation", metavar="NAME_OR_DIR", help=_SET_HELP)
    _add_result_folder(parser)
    _add_pairs(parser, samples=32)


def _add_benchmark(parser: Parser) -> None:
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="folder for the results; what it holds already is not computed again",
    )
    parser.add_argument(
        "--models", nargs="+", default=None, metavar="MODEL", help="default: all that ship"
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["simulation", "dim", "other-optics"],
        metavar="NAME_OR_DIR",
        help=_SET_HELP.replace("simulation)", "all three)"),
    )
    _add_pairs(parser, samples=32)


def _add_calibrate(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a shipped model (see napari-cvdm models) or a checkpoint folder",
    )
    parser.add_argument("--set", default="simulation", metavar="NAME_OR_DIR", help=_SET_HELP)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--out", default=None, metavar="DIR", help="folder to make for the calibrated model"
    )
    where.add_argument(
        "--in-place",
        action="store_true",
        default=False,
        help="write the factor into the card of MODEL; its weights stay as they are",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        default=False,
        help="replace an older model in DIR, once the new one is complete",
    )
    parser.add_argument(
        "--level",
        type=number,
        default=0.9,
        metavar="P",
        help="share of the errors to be below factor times spread (default 0.9)",
    )
    scales = (
        "first choose, of these factors for the noise that the sampler adds at each step, the one "
        "of least CRPS (default: that of the model)"
    )
    parser.add_argument(
        "--noise-scales", type=number, nargs="+", default=None, metavar="S", help=scales
    )
    parser.add_argument(
        "--check",
        type=whole,
        default=None,
        metavar="N",
        help="simulated fields to check the factor on; 0 for none (default: as --fields)",
    )
    _add_pairs(parser, samples=16)
