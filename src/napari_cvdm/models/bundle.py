"""One file for one model: a zip of a checkpoint folder, and nothing else in it.

Nothing from a file is ever executed.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from napari_cvdm.io import output_folder
from napari_cvdm.io.atomic import clear_leftovers
from napari_cvdm.io.errors import one_line
from napari_cvdm.io.folders import check_no_overlap
from napari_cvdm.io.limits import check_directory, open_regular, parse_json_object
from napari_cvdm.models.checkpoint import (
    CARD,
    LARGEST_CARD,
    WEIGHTS,
    CheckpointError,
    load_checkpoint,
    replace_file,
)

MEMBERS = (CARD, WEIGHTS)
ENDING = ".zip"
# A file that unpacks to more is no model of this program.
LARGEST_BYTES = {CARD: LARGEST_CARD, WEIGHTS: 8_000_000_000}
# Weights hardly pack at all, and a card twenty times.
LARGEST_EXPANSION, ALWAYS_ALLOWED = (200, 1_000_000)
PIECE = 1 << 20
# Names that Windows keeps for devices.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model makes the same bytes on any day


def write_bundle(folder: str | Path, path: str | Path, *, overwrite: bool = False) -> Path:
    """Put a checkpoint folder into one .zip file, which is complete before it takes its name.

    The checkpoint is loaded first, so that no broken model is passed on. The files are in the
    bundle as they are in the folder, byte for byte.

    Raises
    ------
    CheckpointError
        The checkpoint cannot be read, or the file cannot be written, has another ending than .zip
        or exists already.
    """
    path = Path(path)
    if path.suffix.lower() != ENDING:
        raise CheckpointError(
            f"{path} does not end in {ENDING}; give the name of a file, such as "
            f"{path.name or 'model'}{ENDING}."
        )
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; choose the name of a file.")
    if path.exists() and not overwrite:
        raise CheckpointError(f"{path} exists already; choose another name or say --overwrite.")
    load_checkpoint(folder)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in MEMBERS:
            entry = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(entry, (Path(folder) / name).read_bytes(), zipfile.ZIP_DEFLATED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path.parent} cannot be made ({error.strerror}); choose a folder that you may write "
            "to."
        ) from None
    clear_leftovers(path.parent)
    replace_file(path, content.getvalue())
    return path


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

    Raises
    ------
    CheckpointError
        Not a bundle: another number of members, other names, damaged or too large; or not a model.
    ImageFileError
        The model exists already, is the source itself, or cannot be written.
    """
    source = Path(source)
    target = Path(folder) / _folder_name(b"".join(_pieces(source, CARD)), source)
    check_no_overlap(target, [source])
    with output_folder(target, overwrite, sign=CARD) as work:
        for name in MEMBERS:
            with (work / name).open("wb") as file:
                file.writelines(_pieces(source, name))
        try:
            load_checkpoint(work)
        except CheckpointError as error:
            # The user gave the source, and never saw the hidden folder beside the target.
            raise CheckpointError(str(error).replace(str(work), str(source))) from None
    return target


def _pieces(source: Path, name: str) -> Iterator[bytes]:
    """A member of a bundle, or a file of a folder, piece by piece.

    Only the two known names are read. No name in an archive ever becomes a path.
    """
    try:
        with _opened(source, name) as stream:
            while piece := stream.read(PIECE):
                yield piece
    except (  # what zipfile and its decompressors raise for damaged files
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        LookupError,
        struct.error,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{source} cannot be read as a model ({one_line(error)}); copy it again, or export the "
            "model again."
        ) from None


@contextmanager
def _opened(source: Path, name: str) -> Iterator[IO[bytes]]:
    if source.is_dir():
        path = source / name
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(
                f"{source} is no model; {name} must be a file in it, and no link. Give a bundle "
                f"({ENDING}) or a folder with both files."
            )
        if path.stat().st_size > LARGEST_BYTES[name]:
            raise CheckpointError(
                f"{path} is larger than any model of this program; get the file from somebody you "
                "trust."
            )
        with path.open("rb") as stream:
            yield stream
        return
    if not source.is_file():
        raise CheckpointError(
            f"{source} is no model; give a bundle ({ENDING}) or a folder with "
            f"{' and '.join(MEMBERS)}."
        )
    with open_regular(source) as file:
        check_directory(file)
        archive = zipfile.ZipFile(file)
        _check_members(source, archive.infolist())
        with archive.open(name) as stream:
            yield stream


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise CheckpointError unless a bundle holds the two files and nothing else.

    They must be packed as `write_bundle` packs them, and have plausible sizes.
    """
    names = sorted(member.filename for member in members)
    if names != sorted(MEMBERS):
        shown = one_line(", ".join(names[:4]) + (", ..." if len(names) > 4 else ""))
        raise CheckpointError(
            f"{path} holds {shown if names else 'nothing'}; a model bundle holds "
            f"{' and '.join(MEMBERS)}, and nothing else. Export the model again."
        )
    for member in members:
        most = min(
            LARGEST_BYTES[member.filename],
            # The archive states its own packed sizes: they count no further than the file's.
            max(ALWAYS_ALLOWED, LARGEST_EXPANSION * min(member.compress_size, path.stat().st_size)),
        )
        if member.file_size > most:
            raise CheckpointError(
                f"{path}: {member.filename} would unpack to {member.file_size:,} bytes, which is "
                "larger than any model of this program; the file may be malicious."
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(
                f"{path}: {member.filename} is packed in a way that a model bundle is not; export "
                "the model again."
            )


def _folder_name(card: bytes, source: Path) -> str:
    """The model's name, where it is one that a folder may have."""
    try:
        name = parse_json_object(card)["name"]
    except (ValueError, KeyError):
        raise CheckpointError(
            f"{source}: {CARD} is not a model card; copy the model again, or export it again."
        ) from None
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w .,()+-]{,99}(?<![ .])", name)
    if not plain or RESERVED.fullmatch(name):
        raise CheckpointError(
            f"{source}: the model is named {one_line(repr(name))}; a name has up to 100 letters, "
            f"digits, spaces and . , ( ) _ + - only. Change it in {CARD}."
        )
    return name
