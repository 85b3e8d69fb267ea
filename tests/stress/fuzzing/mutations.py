"""What can happen to a file.

hypothesis draws it, so that a failing input can be found again and made small.
"""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Hot = tuple[tuple[int, int], ...]
"""Ranges [start, stop) of headers, tags, directories: a changed byte changes the meaning."""

_INTERESTING = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    1000,
    32767,
    32768,
    65535,
    65536,
    10**6,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**12,
    2**63 - 1,
    2**64 - 1,
)
_DIGITS = re.compile(rb"\d+")
_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"2",
    b"65536",
    b"100000",
    b"2147483647",
    b"1000000000000",
    b"1e308",
    b"nan",
    b"inf",
    b"1e-320",
    b"9" * 30,
    b"9" * 400,
    b"1e999",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, 1e308, -1e308, 5e-324, 2**31, 2**63, 10**30, 10**400),
    *(
        float("nan"),
        float("inf"),
        "",
        "a",
        "../../evil",
        "/etc/passwd",
        "\x00",
        "\ud800",
        "é" * 300,
        "YX",
        "x" * 100_000,
        "line\nbreak",
    ),
    *(
        [],
        {},
        [[]],
        [1],
        [1, 2],
        [0, 0],
        ["a", "b"],
        [1e9] * 9,
        {"a": 1},
        {"": {}},
        [10**9],
        [4096] * 64,
        [None],
        {"path": None},
    ),
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes, hot: Hot = ()) -> bytes:
    """One to four edits of a file's bytes."""
    for _ in range(draw(st.integers(1, 4))):
        content = draw(_edited(content, hot))
    return content


@st.composite
def _edited(draw: st.DrawFn, content: bytes, hot: Hot) -> bytes:
    edit = draw(
        st.sampled_from(
            (_number, _number, _number, _bits, _cut, _dropped, _doubled, _filled, _digits)
        )
    )
    start, stop = (
        draw(st.sampled_from(hot)) if hot and draw(st.integers(0, 9)) else (0, len(content))
    )
    place = draw(st.integers(min(start, len(content)), min(stop, len(content))))
    return draw(edit(content, place))


@st.composite
def _number(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    size = draw(st.sampled_from((1, 2, 4, 8)))
    value = draw(st.sampled_from(_INTERESTING)) % 256**size
    return (
        content[:place]
        + value.to_bytes(size, draw(st.sampled_from(("little", "big"))))
        + content[place + size :]
    )


@st.composite
def _bits(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    return (
        content[:place]
        + bytes(byte ^ draw(st.integers(1, 255)) for byte in content[place : place + 1])
        + content[place + 1 :]
    )


@st.composite
def _cut(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    return content[:place] if draw(st.booleans()) else content[place:]


@st.composite
def _dropped(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    return content[:place] + content[place + draw(st.integers(1, 64)) :]


@st.composite
def _doubled(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    piece = content[place : place + draw(st.integers(1, 64))]
    return content[:place] + piece * draw(st.sampled_from((2, 3, 50))) + content[place:]


@st.composite
def _filled(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    piece = draw(st.binary(min_size=1, max_size=16))
    return content[:place] + piece + content[place + len(piece) :]


@st.composite
def _digits(draw: st.DrawFn, content: bytes, place: int) -> bytes:
    """Another number where a text has one."""
    found = list(_DIGITS.finditer(content, place)) or list(_DIGITS.finditer(content))
    if not found:
        return content
    match = found[draw(st.integers(0, min(len(found), 40) - 1))]
    new = draw(st.sampled_from(_NUMBERS))
    new = new.ljust(len(match[0]))[: len(match[0])] if draw(st.booleans()) else new
    return content[: match.start()] + new + content[match.end() :]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """One to three entries of a nested value replaced, removed, renamed or buried.

    The value itself is left alone.
    """
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        value = draw(_changed_once(value))
    return value


@st.composite
def _changed_once(draw: st.DrawFn, value: Any) -> Any:
    inside = (
        list(value)
        if isinstance(value, dict)
        else list(range(len(value)))
        if isinstance(value, list)
        else []
    )
    if not inside or draw(st.integers(0, 5)) == 0:
        return draw(_another(value))
    key = draw(st.sampled_from(inside))
    action = draw(st.sampled_from(("deeper", "deeper", "deeper", "removed", "renamed")))
    if action == "deeper":
        value[key] = draw(_changed_once(value[key]))
    elif isinstance(value, dict):
        kept = value.pop(key)
        value |= (
            {draw(st.sampled_from(("", "x", "name", "format", "__class__"))): kept}
            if action == "renamed"
            else {}
        )
    else:
        value.pop(key)
    return value


@st.composite
def _another(draw: st.DrawFn, value: Any) -> Any:
    new = deepcopy(draw(st.sampled_from(_VALUES)))
    return [new, value] if draw(st.integers(0, 9)) == 0 else new


def nested(depth: int) -> str:
    """JSON that is nothing but brackets."""
    return "[" * depth + "]" * depth


@st.composite
def json_text(draw: st.DrawFn, value: Any, dumps: Callable[[Any], str] = json.dumps) -> bytes:
    """A JSON (or other) file with changed entries, or too deep, or with damaged bytes."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return nested(draw(st.sampled_from((50, 900, 5000, 200_000)))).encode()
    if kind == 1 and isinstance(value, dict) and value:
        buried = json.dumps(value | {draw(st.sampled_from(sorted(value))): "BURIED"})
        return buried.replace(
            '"BURIED"', nested(draw(st.sampled_from((60, 300, 900, 50_000))))
        ).encode()
    try:
        text = dumps(draw(changed(value))).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, OverflowError):  # TOML has no word for it
        text = dumps(value).encode()
    return draw(damaged(text)) if kind == 2 else text
