"""The folder of a long job, which grows beside the name of its result.

A later run can continue it. It takes the name when it is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_cvdm.io.atomic import LEFTOVERS_BELOW, clear_leftovers, write_file
from napari_cvdm.io.errors import ImageFileError
from napari_cvdm.io.folders import (
    NOTES,
    find_foreign,
    move_into_place,
    seal_folder,
    target_folder,
)
from napari_cvdm.io.limits import parse_json_object

PLAN = "plan.json"
SIGN = f"{NOTES}/{PLAN}"
_ENDING = ".ome.zarr"


class JobFolder:
    """Where a job keeps its plan, its markers and its results."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
        read = {
            path.stem: _read_object(path) for path in sorted((self.notes / "done").glob("*.json"))
        }
        return {block: said for block, said in read.items() if said}


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
    begun with another plan may be removed. What has no readable plan was not begun.

    Returns
    -------
    bool
        True if earlier blocks count; False if the folder is new.

    Raises
    ------
    ImageFileError
        Another job was begun there; the message says what differs. Or the folder holds a file that
        no job wrote.
    """
    now = json.loads(json.dumps(dict(plan)))
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
