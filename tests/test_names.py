"""One word has one meaning: words that the plan of the house gave up do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "napari_cvdm"
BANNED = frozenset(
    "anchor apart carrying claim claimed entered evened familiarity guidance imaging ink judged "
    "letter levelling light lights lonely mailbox modest promise promises settled silence spelt "
    "stand stray surroundings survey tied unfamiliar".split()
)


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def public_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name


@pytest.mark.parametrize("name", ["JudgedField", "survey_frame", "familiarity", "TrustLight"])
def test_a_planted_name_is_seen(name: str) -> None:
    assert words_of(name) & BANNED


def test_no_public_name_has_a_banned_word() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = [path.stem, *public_names(path.read_text(encoding="utf-8"))]
        banned = [name for name in names if words_of(name) & BANNED]
        if banned:
            found[path.relative_to(PACKAGE).as_posix()] = banned
    assert found == {}
