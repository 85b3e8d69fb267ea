"""A disk that loses what was not synced, as a power cut leaves it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class UnsafeDisk:
    """Records what is on the disk for sure, and copies that at chosen moments.

    A file that was not synced after its last change becomes empty. One that only grew keeps what
    was synced. A name that was given, and a folder that was made, are lost until the folder around
    them is synced.

    Parameters
    ----------
    root : Path
        The folder that is looked at.
    copies : dict of int to Path
        Where to copy it to, by the number of the operation before which the power fails.
    """

    def __init__(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, copies: dict[int, Path] | None = None
    ) -> None:
        self.root, self.copies, self.operations = root, copies or {}, 0
        self._copying = False
        self.log: list[tuple[str, str]] = []
        # What was there before is on the disk.
        entries = (path.stat() for path in root.rglob("*"))
        self._synced = {entry.st_ino: (entry.st_size, entry.st_mtime_ns) for entry in entries}
        self._content: dict[int, bytes] = {}
        self._pending: dict[Path, list[tuple[Path, bytes | None, Path | None]]] = {}
        for name in ("fsync", "replace", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, really: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*given: Any, **folders: Any) -> Any:
            if self._copying:
                return really(*given, **folders)
            if self.operations in self.copies:
                self._copying = True
                self._copy(self.copies[self.operations])
                self._copying = False
            self.operations += 1
            if name == "fsync":
                self._sync(*given)
            elif name == "mkdir":
                target = _whole(given[0], folders.get("dir_fd"))
                if not os.path.lexists(target):
                    self._note(name, target, None, None)
            else:
                target = _whole(given[1], folders.get("dst_dir_fd"))
                before = target.read_bytes() if target.is_file() else None
                source = _whole(given[0], folders.get("src_dir_fd"))
                self._note(name, target, before, source)
            return really(*given, **folders)

        return operation

    def _sync(self, descriptor: int) -> None:
        entry, path = os.fstat(descriptor), Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._synced[entry.st_ino] = (entry.st_size, entry.st_mtime_ns)
        self._content[entry.st_ino] = path.read_bytes() if path.is_file() else b""
        self._pending.pop(path, None)
        self.log.append(("fsync", path.name))

    def _note(self, name: str, target: Path, before: bytes | None, source: Path | None) -> None:
        self._pending.setdefault(target.parent, []).append((target, before, source))
        self.log.append((name, target.name))

    def _copy(self, to: Path) -> None:
        if not self.root.exists():
            return
        shutil.copytree(self.root, to)
        for path in self.root.rglob("*"):
            entry = path.stat()
            if path.is_file() and self._synced.get(entry.st_ino) != (
                entry.st_size,
                entry.st_mtime_ns,
            ):
                synced = self._content.get(entry.st_ino, b"")
                grew = path.read_bytes().startswith(synced)
                (to / path.relative_to(self.root)).write_bytes(synced if grew else b"")
        for given in self._pending.values():
            for target, before, source in reversed(given):
                if not target.is_relative_to(self.root):
                    continue
                lost = to / target.relative_to(self.root)
                if before is not None and lost.is_file():
                    lost.write_bytes(before)
                elif source is not None and lost.exists():
                    lost.rename(to / source.relative_to(self.root))
                elif lost.is_dir():
                    shutil.rmtree(lost)


def _whole(name: str | Path, folder: int | None) -> Path:
    """The path of a name that may be given from an open folder."""
    return Path(name) if folder is None else Path(os.readlink(f"/proc/self/fd/{folder}")) / name
