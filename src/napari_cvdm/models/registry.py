"""The models that ship in the package, and loading by name or by path."""

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch

from napari_cvdm.models.checkpoint import (
    CARD,
    WEIGHTS,
    Checkpoint,
    CheckpointError,
    ModelCard,
    load_checkpoint,
    read_card,
)
from napari_cvdm.models.tiled import channels_last

SHIPPED = Path(__file__).parent / "weights"


class UnknownModelError(CheckpointError):
    """A name that no model has."""


def shipped_models() -> Iterator[tuple[str, ModelCard]]:
    """Name and card of every shipped model, in alphabetical order; skips what is none."""
    for path, card in models_in(SHIPPED):
        yield Path(path).name, card


def models_in(folder: str | Path) -> Iterator[tuple[str, ModelCard]]:
    """Path and card of every model in a folder, in alphabetical order; skips other entries."""
    for path in sorted(Path(folder).glob(f"*/{CARD}")):
        with suppress(CheckpointError):
            card = read_card(path.parent)
            if (path.parent / WEIGHTS).is_file():
                yield str(path.parent), card


def model_folder(name_or_path: str) -> Path:
    """Folder of a shipped model's name, or of a path to a checkpoint; else UnknownModelError."""
    # A path is never taken for a shipped name, even where it ends like one.
    if (SHIPPED / name_or_path / CARD).exists() and "/" not in name_or_path:
        return SHIPPED / name_or_path
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    names = ", ".join(name for name, _ in shipped_models())
    raise UnknownModelError(
        f"model {name_or_path!r} is neither a shipped model ({names}) nor a checkpoint folder; see "
        "`napari-cvdm models`."
    )


@lru_cache(maxsize=4)
def _loaded(folder: Path, written_ns: tuple[int, ...]) -> Checkpoint:
    checkpoint = load_checkpoint(folder)
    # Once here, so that `network_on` need not copy it for the CPU.
    channels_last(checkpoint.network, torch.device("cpu"))
    return checkpoint


def load_model(name_or_path: str) -> Checkpoint:
    """Load a model once; later calls return the same object until one of its files changes.

    It takes a shipped name, such as ``phase-2shot``, or the path of a checkpoint folder.
    CheckpointError where no model has the name, or a checkpoint cannot be read.
    """
    folder = model_folder(name_or_path).resolve()
    files = [path for path in (folder / WEIGHTS, folder / CARD) if path.exists()]
    # The times make a file that changed another entry of the cache.
    return _loaded(folder, tuple(path.stat().st_mtime_ns for path in files))
