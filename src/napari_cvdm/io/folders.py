"""Folders of results that are either complete or not there.

A folder is replaced only where it holds what this program wrote, and nothing else. A manifest in it
tells what that was. The folder of a long job grows beside the name of its result. A later run can
continue it, and it takes the name when it is complete.
"""

import ctypes
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from threading import current_thread, main_thread
from typing import Any

from napari_cvdm.io.atomic import (
    FOLDER,
    HAS_HANDLES,
    LEFTOVERS_BELOW,
    NO_LINK,
    clear_leftovers,
    lock,
    sync_path,
    temporary_name,
    write_file,
)
from napari_cvdm.io.errors import FULL_DISK, ImageFileError, one_line, writing_error
from napari_cvdm.io.limits import parse_json_object, read_bounded

NOTES = ".napari-cvdm"
MANIFEST = f"{NOTES}/written.json"
_SWAP, _HERE = 2, -100  # RENAME_EXCHANGE (RENAME_SWAP of macOS is the same), AT_FDCWD
# People edit these. Images are known by their size.
_TEXTS = frozenset({".json", ".txt", ".md", ".csv", ".toml", ".yaml"})
# What 0.1.0 wrote, and what an unfinished job holds: neither has a manifest.
_KNOWN = re.compile(
    r"(mean|std|variance|interval|rate|valid|gamma|beta|samples|residual|chi2)\.ome\.tif"
    r"|provenance\.json|zarr\.json"
    r"|\.napari-cvdm/(plan\.json|written\.json|done/[^/]+\.json|frames/\d+\.npz)"
    r"|(OME|mean|std|rate|valid|samples)/((\d+/)?zarr\.json|\d+/c(/\d+)*)"
    r"|(.*/)?(\.napari-cvdm-[0-9a-f]+\.part|[^/]*\.partial|\.[^/]+\.[0-9a-f]{8}\.part)"
)


def seal_folder(folder: Path) -> None:
    """Bring everything in a folder to the disk, and keep a manifest of it in the folder."""
    entries = {}
    for name, path in sorted(_files_below(folder)):
        sync_path(path)
        entries[name] = _content_mark(path)
    entries.pop(MANIFEST, None)
    _write_manifest(folder, entries)
    # Folders come last, because the manifest is an entry of one.
    for root, _, _ in os.walk(folder):
        sync_path(Path(root))


def renew_manifest(path: Path) -> None:
    """Note in the manifest of a file's folder, if it has one, that this program replaced it."""
    entries = _manifest(path.parent)
    if path.name in entries:
        _write_manifest(path.parent, {**entries, path.name: _content_mark(path)})


def _write_manifest(folder: Path, entries: Mapping[str, list[Any]]) -> None:
    text = json.dumps({"written": dict(entries)}, indent=1, sort_keys=True) + "\n"
    write_file(folder / MANIFEST, text.encode(), within=folder)


def _manifest(folder: Path) -> dict[str, list[Any]]:
    """Size, and hash of a text, by name; empty where there is no readable manifest."""
    try:
        return dict(parse_json_object(read_bounded(folder / MANIFEST))["written"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _content_mark(path: Path) -> list[Any]:
    if path.suffix.lower() not in _TEXTS:
        return [path.stat().st_size]
    content = path.read_bytes()
    return [len(content), hashlib.sha256(content).hexdigest()]


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file and link, by its name from the folder; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        place = Path(root)
        for path in (place / name for name in (*files, *folders)):
            if path.is_symlink() or path.name in files:
                yield path.relative_to(folder).as_posix(), path


def find_foreign(folder: Path, *, unfinished: bool = False) -> str | None:
    """Name of a file in a folder that is not as this program wrote it; None without one.

    Results of 0.1.0 and `unfinished` jobs have no manifest. They may hold the known names only,
    and such a result its provenance.
    """
    found = dict(_files_below(folder))
    written: dict[str, list[Any]] = {}
    # Shortest first: of a file with two manifests, that of the inner folder counts.
    for name in sorted(found, key=len):
        if f"/{name}".endswith(f"/{MANIFEST}") and (
            entries := _manifest(folder / name[: -len(MANIFEST)])
        ):
            written |= {f"{name[: -len(MANIFEST)]}{entry}": mark for entry, mark in entries.items()}
            written[name] = _content_mark(found[name])
    known = unfinished or (not written and _has_provenance(folder))
    for name, path in sorted(found.items()):
        if path.is_symlink() or not path.is_file():
            return name
        # What a power cut emptied has nothing to lose.
        kept = name in written and (
            path.stat().st_size == 0 or written[name] == _content_mark(path)
        )
        if not kept and not (known and _KNOWN.fullmatch(name)):
            return name
    return None


def _has_provenance(folder: Path) -> bool:
    try:
        record = parse_json_object(read_bounded(folder / "provenance.json"))
        return "napari-cvdm" in record["versions"]
    except (OSError, ValueError, TypeError, KeyError):
        return False


@contextmanager
def output_folder(
    path: str | Path, overwrite: bool, sign: str = "provenance.json"
) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well.

    It is empty and on the same disk. Parents are made, too. With `overwrite`, an older result may
    be replaced; it stays until the new one is complete. The file `sign` marks such a result. A
    folder without it, or with anything that this program did not write, is never replaced.

    Raises ImageFileError where the folder exists and may not be replaced, cannot be made, or the
    disk is full. Any exception in the block (KeyboardInterrupt, too) removes the temporary folder
    and leaves an older result as it was.
    """
    target = target_folder(path, overwrite, sign)
    beside = _existing_parent(target)
    # A kill may come after empty parents were made.
    for place in (beside, *beside.parents):
        clear_leftovers(place)
        if any(place.iterdir()):
            break
    try:
        work, descriptor = _make_temporary_folder(beside)
    except OSError as error:
        raise writing_error(target, error) from error
    try:
        yield work
        seal_folder(work)
        move_into_place(work, target, overwrite, sign)
    except ImageFileError as error:
        # Nobody knows the temporary name.
        raise ImageFileError(str(error).replace(str(work), str(target))) from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise writing_error(target, error) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_temporary_folder(beside: Path) -> tuple[Path, int | None]:
    """A new folder, locked as long as the descriptor is open; None on Windows."""
    while True:
        work = beside / temporary_name()
        work.mkdir()
        if not HAS_HANDLES:
            return work, None
        with suppress(FileNotFoundError):
            descriptor = os.open(work, FOLDER | NO_LINK)
            if lock(descriptor) and work.exists():
                return work, descriptor
            os.close(descriptor)  # a run that clears leftovers came first


def target_folder(path: str | Path, overwrite: bool, sign: str) -> Path:
    """Resolved path of a folder to make; ImageFileError where `output_folder` raises it."""
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise ImageFileError(
            f"{path}: cannot be followed ({one_line(error)}); choose another folder."
        ) from error
    beside = _existing_parent(target)
    if not beside.is_dir():
        raise ImageFileError(f"{target}: {beside} is a file, not a folder; choose another name.")
    if not target.exists():
        _restore_older(target)
    if not target.exists():
        return target
    if not target.is_dir():
        raise ImageFileError(f"{target}: is a file; choose the name of a folder.")
    if not overwrite:
        raise ImageFileError(f"{target}: exists already; choose another folder or say --overwrite.")
    _check_replaceable(target, sign)
    return target


def _check_replaceable(target: Path, sign: str) -> None:
    """Raise ImageFileError unless a folder is an empty one, or a result and nothing else."""
    own = target not in (Path(os.path.expanduser("~")), Path.cwd(), *Path.cwd().parents)
    if own and (foreign := find_foreign(target)) is not None:
        raise ImageFileError(
            f"{target}: holds {foreign}, which is not as napari-cvdm wrote it, and is never "
            "overwritten; move it, or choose another folder."
        )
    if not own or (any(target.iterdir()) and not (target / sign).exists()):
        raise ImageFileError(
            f"{target}: is not a result (it has no {sign}) and is never overwritten; choose "
            "another folder."
        )


def _existing_parent(target: Path) -> Path:
    try:
        beside = next((parent for parent in target.parents if parent.exists()), None)
    except OSError as error:
        raise writing_error(target, error) from error
    if beside is None:
        raise ImageFileError(
            f"{target}: is the root of a disk, or on a disk that is not there; choose a folder on "
            "one that is."
        )
    return beside


def move_into_place(work: Path, target: Path, overwrite: bool, sign: str) -> None:
    """Give a complete folder its name; an older one there goes only then."""
    try:
        # The parents that are made now, and the folder that they are made in.
        parents = list(target.parents)
        changed = parents[: parents.index(_existing_parent(target)) + 1]
        target.parent.mkdir(parents=True, exist_ok=True)
        replaced = overwrite and target.exists()
        if replaced:
            # Again, because a file may have come while the new one was made.
            _check_replaceable(target, sign)
            _swap_folders(work, target)
        else:
            os.rename(work, target)
        for folder in changed:
            sync_path(folder)
        if replaced:  # the older one goes only now, when the new name is on the disk
            older = work.with_name(temporary_name())
            os.rename(work, older)
            shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        raise writing_error(target, error) from error


def _swap_folders(work: Path, target: Path) -> None:
    """Exchange two folders: by one call where the system has it, else while signals wait."""
    if _exchange(work, target):
        return
    # `_restore_older` knows this name, and gives it back after a kill between the renames.
    older = target.with_name(f".{target.name}.{token_hex(8)}.old")
    with delayed_signals():
        os.rename(target, older)
        try:
            os.rename(work, target)
        except OSError:
            os.rename(older, target)
            raise
        os.rename(older, work)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names at once; False where the system or the disk cannot."""
    names = os.fsencode(first), os.fsencode(second)
    if _exchange_names is None:
        return False
    if sys.platform == "darwin":
        return not _exchange_names(*names, _SWAP)
    return not _exchange_names(_HERE, names[0], _HERE, names[1], _SWAP)


def _system_call() -> Any:
    """renameat2 of Linux or renamex_np of macOS; None without it."""
    try:
        library = ctypes.CDLL(None)
        return library.renamex_np if sys.platform == "darwin" else library.renameat2
    except (AttributeError, OSError, TypeError):  # Windows, and C libraries without it
        return None


_exchange_names = _system_call()


def _restore_older(target: Path) -> None:
    """Give an older result its name back, which a kill between two renames took."""
    with suppress(OSError, ValueError):
        for older in target.parent.glob(f".{glob.escape(target.name)}.{'?' * 16}.old"):
            os.rename(older, target)


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Keep signals that end the program until the block has ended."""
    received: list[int] = []
    # Python lets only the main thread set handlers. Windows has no SIGHUP.
    names = ("SIGINT", "SIGTERM", "SIGHUP") if current_thread() is main_thread() else ()
    before: dict[int, Any] = {}
    try:
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            before[number] = signal.signal(number, lambda number, frame: received.append(number))
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that was not set from Python.
            signal.signal(number, handler or signal.SIG_DFL)
        for number in received:
            signal.raise_signal(number)


def check_no_overlap(out: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise ImageFileError where a folder to make is, or holds, one of the inputs.

    Links, relative paths and names of another case are seen: folders are compared by identity.
    """
    for path in inputs:
        real = Path(os.path.realpath(path))
        for place in (real, *real.parents):
            with suppress(OSError):
                if os.path.samefile(out, place):
                    what = "is" if place == real else "lies in"
                    raise ImageFileError(
                        f"{path} {what} {out}, which would be replaced; choose another folder."
                    )


PLAN = "plan.json"
SIGN = f"{NOTES}/{PLAN}"
_ENDING = ".ome.zarr"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Where a job keeps its plan, its markers and its results."""

    path: Path

    @property
    def notes(self) -> Path:
        """What is no image: the plan, and a marker for every block that is done."""
        return self.path / NOTES

    def plan(self) -> dict[str, Any]:
        """What was planned; empty where there is no plan, or one that was cut short."""
        return _read_object(self.notes / PLAN)

    def plan_sha256(self) -> str:
        """Fingerprint of the plan's file; processes that see the same one work at the same job."""
        return hashlib.sha256((self.notes / PLAN).read_bytes()).hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is complete, and on the disk, before it takes its name."""
        write_file(self.path / name, content, within=self.path.parent)

    def mark(self, block: str, said: Mapping[str, Any]) -> None:
        """Say that a block is written."""
        text = json.dumps(dict(said), sort_keys=True) + "\n"
        self.write(f"{NOTES}/done/{block}.json", text.encode())

    def marks(self) -> dict[str, dict[str, Any]]:
        """What was said of every block that is written; a damaged marker says nothing."""
        paths = sorted((self.notes / "done").glob("*.json"))
        return {path.stem: said for path in paths if (said := _read_object(path))}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return parse_json_object(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def growing_folder(out: str | Path, overwrite: bool) -> JobFolder:
    """The folder beside `out` in which a job grows: ``NAME.part.ome.zarr`` for ``NAME.ome.zarr``.

    ImageFileError where `out` exists and may not be replaced, or is no result of such a job.
    """
    return JobFolder(growing_path(target_folder(out, overwrite, SIGN)))


def growing_path(out: str | Path) -> Path:
    """Where the job of a result grows."""
    path = Path(out)
    stem = path.name[: -len(_ENDING)] if path.name.lower().endswith(_ENDING) else path.stem
    return path.with_name(f"{stem}.part{_ENDING}")


def begin_job(folder: JobFolder, plan: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Take up a job that was begun, or begin it.

    `plan` is everything that the pixels depend on, as JSON holds it. With `overwrite`, what was
    begun with another plan may be removed. What has no readable plan was not begun. The answer is
    whether earlier blocks count; False for a new folder.

    Raises ImageFileError where another job was begun there, and says what differs, or where the
    folder holds a file that no job wrote.
    """
    now = json.loads(json.dumps(dict(plan)))  # JSON gives lists for tuples, as the stored plan has
    if os.path.lexists(folder.path):
        _check_own(folder)
        before = folder.plan()
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if not changed:
            clear_leftovers(folder.path, LEFTOVERS_BELOW)
            return True
        if before and not overwrite:
            raise ImageFileError(
                f"{folder.path}: another job was begun there ({', '.join(changed)} differ); choose "
                "another --out, or say --overwrite."
            )
        shutil.rmtree(folder.path)
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    folder.write(f"{NOTES}/{PLAN}", (json.dumps(now, indent=2, sort_keys=True) + "\n").encode())
    return False


def _check_own(folder: JobFolder) -> None:
    """Raise ImageFileError where a growing folder is a link, or holds what no job wrote."""
    link = folder.path.is_symlink() or not folder.path.is_dir()
    foreign = "" if link else find_foreign(folder.path, unfinished=True)
    if foreign is not None:
        raise ImageFileError(
            f"{folder.path / foreign}: is not of this job, which would write here; move it, or "
            "choose another --out."
        )


def finish_job(folder: JobFolder, out: str | Path, overwrite: bool) -> None:
    """Give the complete folder its name; ImageFileError where a file came that no job wrote."""
    _check_own(folder)
    seal_folder(folder.path)
    move_into_place(folder.path, target_folder(out, overwrite, SIGN), overwrite, SIGN)
