"""Read small files from untrusted sources whole.

A file must be regular and of an agreed size. It must not be nested deeper than any file that this
program writes.
"""

import json
import os
from pathlib import Path
from typing import Any

LARGEST_RECORD = 50_000_000
DEEPEST = 50


def read_bounded(path: Path, largest: int = LARGEST_RECORD) -> bytes:
    """The bytes of a regular file.

    Parameters
    ----------
    path : Path
    largest : int
        Allowed size [bytes].

    Raises
    ------
    ValueError
        A pipe or a device, which could be read without end, or a larger file.
    OSError
        The file cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no regular file")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise ValueError(
                f"{path.name} is larger than {largest:,} bytes, and none of this program is"
            )
        return file.read()


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Parameters
    ----------
    text : str or bytes
        UTF-8.

    Raises
    ------
    ValueError
        No JSON, no object, or nested so deep that nothing could be done with it.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    check_depth(value)
    return value


def check_depth(value: Any) -> None:
    """ValueError where mappings and lists are nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"its entries are nested deeper than {DEEPEST}")
