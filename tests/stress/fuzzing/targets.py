"""Who reads what.

Each reader of the program, the specimens that it is given, and the errors that are its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from tests.stress.fuzzing import ngff_specimens, specimens
from tests.stress.fuzzing.mutations import damaged
from tests.stress.fuzzing.specimens import Specimen

from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import RequestError
from napari_cvdm.io import ImageFileError, check_frame, check_pixels, combine_planes, read_image
from napari_cvdm.io.read import open_image, window_of
from napari_cvdm.models.checkpoint import CheckpointError

OWN_ERRORS = (ImageFileError, RequestError, OpticsError, CheckpointError)
Files = dict[str, bytes]
WINDOW_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One reader.

    Parameters
    ----------
    name : str
    files : strategy
        Draws the files of one input, by name.
    act : callable
        Reads the folder that they lie in.
    """

    name: str
    files: st.SearchStrategy[Files] = field(repr=False)
    act: Callable[[Path], object] = field(repr=False)


@st.composite
def one_damaged(draw: st.DrawFn, kinds: Callable[[], tuple[Specimen, ...]]) -> Files:
    """One of some specimens, damaged."""
    specimen = draw(st.sampled_from(kinds()))
    return {specimen.name: draw(damaged(specimen.content, specimen.hot))}


def look(folder: Path) -> None:
    """Read an image as the command line does."""
    path = next(path for path in folder.iterdir() if path.is_file())
    stack = read_image(path)
    if 2 in stack.array.shape[:-2]:
        combine_planes(stack)
    if stack.array.min() < stack.array.max():
        check_pixels(stack)


def look_lazily(folder: Path) -> None:
    """Open an OME-Zarr as a job block by block does, and read its first block and its last."""
    stack = open_image(folder / ngff_specimens.NAME)
    frames = stack.array.shape[:-2]
    for first, frame in ((True, (0,) * len(frames)), (False, tuple(size - 1 for size in frames))):
        window = [
            slice(0, min(size, WINDOW_PX)) if first else slice(max(0, size - WINDOW_PX), size)
            for size in stack.array.shape[-2:]
        ]
        check_frame(window_of(stack, frame, *window), stack.source)


def _image_targets() -> list[Target]:
    kinds = {"tiff": specimens.tiffs, "mrc": specimens.mrcs, "npy": specimens.npys}
    files = [Target(name=name, files=one_damaged(kind), act=look) for name, kind in kinds.items()]
    return [*files, Target(name="ngff", files=ngff_specimens.damaged_folders(), act=look_lazily)]


def _model_targets() -> list[Target]:
    from tests.stress.fuzzing import model_targets as given  # torch takes its time

    return [
        Target(name="arrays", files=one_damaged(specimens.npzs), act=given.read_pairs),
        Target(name="card", files=given.card_files(), act=given.list_models),
        Target(name="network", files=given.network_files(), act=given.use_model),
        Target(name="weights", files=given.weights_files(), act=given.use_model),
        Target(name="bundle", files=given.bundle_files(), act=given.add_bundle),
        Target(name="result", files=given.result_files(), act=given.read_result),
        Target(name="recipe", files=given.recipe_files(), act=given.read_a_recipe),
        Target(name="training", files=given.state_files(), act=given.go_on),
    ]


@cache
def targets() -> dict[str, Target]:
    """Every reader, by name."""
    return {target.name: target for target in (*_image_targets(), *_model_targets())}
