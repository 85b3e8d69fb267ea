"""The folder of a long job.

It grows beside the result's name, and a later run can continue it. It takes the name when it is
complete.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from napari_cvdm.io.errors import ImageFileError, writing_error
from napari_cvdm.io.folder import move_into_place, target_folder

NOTES = ".napari-cvdm"
PLAN = "plan.json"
SIGN = f"{NOTES}/{PLAN}"
_ENDING = ".ome.zarr"


class JobFolder:
    """Where a job keeps its plan, its markers and its results.

    Parameters
    ----------
    path : Path
        The folder that grows.
    """

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
        """Plan of a job that was begun.

        It is empty where there is no such job, or where a damaged one may be replaced.
        """
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
        target = self.notes / name
        partial = target.with_name(f"{target.name}.{uuid4().hex[:8]}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(target)
        except OSError as error:
            raise writing_error(target, error) from error

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

    Raises
    ------
    ImageFileError
        `out` exists and may not be replaced, or is no result of such a job.
    """
    target = target_folder(out, overwrite, SIGN)
    stem = target.name[: -len(_ENDING)] if target.name.lower().endswith(_ENDING) else target.stem
    return JobFolder(target.with_name(f"{stem}.part{_ENDING}"))


def begin_job(folder: JobFolder, plan: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Take up a job that was begun, or begin it.

    Parameters
    ----------
    folder : JobFolder
    plan : mapping
        Everything that the pixels depend on, as JSON holds it.
    overwrite : bool
        Whether what was begun with another plan may be removed.

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
