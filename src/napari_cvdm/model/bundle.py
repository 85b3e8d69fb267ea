"""One file for one model: a zip of a checkpoint folder, and nothing else in it. Nothing from a file is ever executed."""

import io
import json
import re
import zipfile
import zlib
from pathlib import Path

from napari_cvdm.image_files import output_folder
from napari_cvdm.model.checkpoint import CARD, WEIGHTS, CheckpointError, load_checkpoint, replace_file

MEMBERS = (CARD, WEIGHTS)
ENDING = ".zip"
LARGEST_BYTES = {CARD: 10_000_000, WEIGHTS: 8_000_000_000}  # a file that unpacks to more is no model of this program
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model makes the same bytes on any day


def write_bundle(folder: str | Path, path: str | Path, *, overwrite: bool = False) -> Path:
    """Put a checkpoint folder into one .zip file, which is complete before it takes its name.

    Parameters
    ----------
    folder : path
        A checkpoint; it is loaded first, so that no broken model is passed on.
    path : path
        The file to make, ending in ``.zip``.
    overwrite : bool
        Whether an older file may be replaced.

    Returns
    -------
    Path
        The file: ``card.json`` and ``model.safetensors`` as they are in the folder, byte for byte.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be read, or the file cannot be written, has another ending or exists already.
    """
    path = Path(path)
    _check_new_file(path, overwrite)
    load_checkpoint(folder)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in MEMBERS:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), (Path(folder) / name).read_bytes(), zipfile.ZIP_DEFLATED)
    _make_parent(path)
    replace_file(path, content.getvalue())
    return path


def _check_new_file(path: Path, overwrite: bool) -> None:
    """CheckpointError unless a .zip file may be written there."""
    if path.suffix.lower() != ENDING:
        raise CheckpointError(f"{path} does not end in {ENDING}; give the name of a file, such as {path.name or 'model'}{ENDING}.")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; choose the name of a file.")
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists already; choose another name or say --overwrite.")


def _make_parent(path: Path) -> None:
    """Make the folder of a file; CheckpointError where that is refused."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path.parent} cannot be made ({error.strerror}); choose a folder that you may write to.") from None


def add_model(source: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Put a model into a folder of models, under the name in its card.

    Parameters
    ----------
    source : path
        A bundle that `write_bundle` made, or a checkpoint folder.
    folder : path
        The folder of models; made if missing. napari's preference "Model folder" names one.
    overwrite : bool
        Whether a model of that name may be replaced; it stays until the new one was read in full.

    Returns
    -------
    Path
        Folder of the model, ready for ``--model``.

    Raises
    ------
    CheckpointError
        Not a bundle: another number of members, other names, damaged or too large; or not a model.
    ImageFileError
        The model exists already, or cannot be written.
    """
    files = _members_of(Path(source)) if Path(source).is_file() else _files_of(Path(source))
    target = Path(folder) / _folder_name(files[CARD], source)
    with output_folder(target, overwrite, sign=CARD) as work:
        for name, content in files.items():
            (work / name).write_bytes(content)
        try:
            load_checkpoint(work)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(work), str(source))) from None
    return target


def _members_of(path: Path) -> dict[str, bytes]:
    """Both files in a bundle. Only the two known names are read, and no name in the archive ever becomes a path."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            return {name: archive.read(name) for name in MEMBERS}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # the last: a password
        raise CheckpointError(f"{path} cannot be read as a model bundle ({error}); copy it again, or export the model again.") from None


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = sorted(member.filename for member in members)
    if names != sorted(MEMBERS):
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise CheckpointError(f"{path} holds {shown or 'nothing'}; a model bundle holds {' and '.join(MEMBERS)}, and nothing else. Export the model again.")
    large = [member.filename for member in members if member.file_size > LARGEST_BYTES[member.filename]]
    if large:
        raise CheckpointError(f"{path}: {large[0]} would be larger than any model of this program; get the file from somebody you trust.")


def _files_of(folder: Path) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in MEMBERS}
    except OSError as error:
        raise CheckpointError(f"{folder} is no model ({error.strerror}); give a bundle ({ENDING}) or a folder with {' and '.join(MEMBERS)}.") from None


def _folder_name(card: bytes, source: str | Path) -> str:
    """The model's name, where it is one that a folder may have."""
    try:
        name = json.loads(card)["name"]
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"{source}: {CARD} is not a model card; copy the model again, or export it again.") from None
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w .,()+-]*(?<![ .])", name):
        raise CheckpointError(f"{source}: the model is named {name!r}; a name has letters, digits, spaces and . , ( ) _ + - only. Change it in {CARD}.")
    return name
