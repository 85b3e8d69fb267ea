"""Folders of results that are either complete or not there, and files that are.

The folder of a long job grows beside the name of its result, and a later run can continue it. It
takes the name when it is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from napari_cvdm.io.errors import FULL_DISK, ImageFileError, one_line, writing_error

NOTES = ".napari-cvdm"
PLAN = "plan.json"
SIGN = f"{NOTES}/{PLAN}"
_ENDING = ".ome.zarr"


@contextmanager
def output_folder(
    path: str | Path, overwrite: bool, sign: str = "provenance.json"
) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well.

    Parents are made, too. With `overwrite`, an older result may be replaced; it stays until the new
    one is complete. The file `sign` marks such a result: a folder that has other content and not
    this file is never replaced.

    Yields
    ------
    Path
        A new empty folder on the same disk, to write into.

    Raises
    ------
    ImageFileError
        The folder exists and may not be replaced, cannot be made, or the disk is full. Any
        exception in the block (KeyboardInterrupt, too) removes the temporary folder and leaves an
        older result as it was.
    """
    target = target_folder(path, overwrite, sign)
    work = _existing_parent(target) / f".{target.name}.{uuid4().hex[:8]}.part"
    try:
        work.mkdir()
    except OSError as error:
        raise writing_error(target, error) from error
    try:
        yield work
        move_into_place(work, target, overwrite)
    except ImageFileError as error:
        raise ImageFileError(str(error).replace(str(work), str(target))) from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise writing_error(target, error) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
        return target
    if not target.is_dir():
        raise ImageFileError(f"{target}: is a file; choose the name of a folder.")
    if not overwrite:
        raise ImageFileError(f"{target}: exists already; choose another folder or say --overwrite.")
    if target in (Path(os.path.expanduser("~")), Path.cwd(), *Path.cwd().parents) or (
        any(target.iterdir()) and not (target / sign).exists()
    ):
        raise ImageFileError(
            f"{target}: is not a result (it has no {sign}) and is never overwritten; choose "
            "another folder."
        )
    return target


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


def move_into_place(work: Path, target: Path, overwrite: bool) -> None:
    """Give a complete folder its name; an older one there goes only then."""
    old = target.with_name(f".{target.name}.{uuid4().hex[:8]}.old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (overwrite and target.exists()):
            os.rename(work, target)
            return
        os.rename(target, old)
        try:
            os.rename(work, target)
        except BaseException:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise writing_error(target, error) from error


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A new file beside `path` that takes its name when the block ends well, else is removed.

    ImageFileError where the disk is full, or the folder may not be written to.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise writing_error(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink()


class JobFolder:
    """Where a job keeps its plan, its markers and its results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def notes(self) -> Path:
        """What is no image: the plan, and a marker for every block that is done."""
        return self.path / NOTES

    @property
    def planned(self) -> bool:
        """Whether a job was begun here."""
        return (self.notes / PLAN).exists()

    def plan(self) -> dict[str, Any]:
        """What was planned; ImageFileError where there is no readable plan."""
        try:
            return dict(json.loads((self.notes / PLAN).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ImageFileError(
                f"{self.path}: holds no plan that can be read; start the job again with "
                "--overwrite."
            ) from error

    def begun(self, overwrite: bool) -> dict[str, Any]:
        """Plan of a job that was begun; empty without one, or where a damaged one may go."""
        try:
            return self.plan() if self.planned else {}
        except ImageFileError:
            if not overwrite:
                raise
            return {}

    def plan_sha256(self) -> str:
        """Fingerprint of the plan's file; processes that see the same one work at the same job."""
        return hashlib.sha256((self.notes / PLAN).read_bytes()).hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file that is complete before it takes its name."""
        with complete_file(self.notes / name) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)

    def mark(self, block: str, said: Mapping[str, Any]) -> None:
        """Say that a block is written."""
        self.write(f"done/{block}.json", (json.dumps(dict(said), sort_keys=True) + "\n").encode())

    def is_done(self, block: str) -> bool:
        """Whether a block is written."""
        return (self.notes / "done" / f"{block}.json").exists()

    def marks(self) -> dict[str, dict[str, Any]]:
        """What was said of every block that is written."""
        return {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted((self.notes / "done").glob("*.json"))
        }


def growing_folder(out: str | Path, overwrite: bool) -> JobFolder:
    """The folder beside `out` in which a job grows: ``NAME.part.ome.zarr`` for ``NAME.ome.zarr``.

    ImageFileError where `out` exists and may not be replaced, or is no result of such a job.
    """
    target = target_folder(out, overwrite, SIGN)
    stem = target.name[: -len(_ENDING)] if target.name.lower().endswith(_ENDING) else target.stem
    return JobFolder(target.with_name(f"{stem}.part{_ENDING}"))


def begin_job(folder: JobFolder, plan: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Take up a job that was begun, or begin it.

    `plan` is everything that the pixels depend on, as JSON holds it. With `overwrite`, what was
    begun with another plan may be removed.

    Returns
    -------
    bool
        True if earlier blocks count; False if the folder is new.

    Raises
    ------
    ImageFileError
        Another job was begun there; the message says what differs.
    """
    now = json.loads(json.dumps(dict(plan)))
    if folder.path.exists():
        before = folder.begun(overwrite)
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if not changed:
            return True
        if not overwrite or (any(folder.path.iterdir()) and not folder.planned):
            raise ImageFileError(
                f"{folder.path}: another job was begun there ({', '.join(changed)} differ); choose "
                "another --out, or say --overwrite."
            )
        shutil.rmtree(folder.path)
    folder.write(PLAN, (json.dumps(now, indent=2, sort_keys=True) + "\n").encode())
    return False


def finish_job(folder: JobFolder, out: str | Path, overwrite: bool) -> None:
    """Give the complete folder its name."""
    move_into_place(folder.path, target_folder(out, overwrite, SIGN), overwrite)
