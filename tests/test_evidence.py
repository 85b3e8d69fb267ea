"""Every section of the evidence page runs on small stand-ins for the real images.

So a broken section is noticed.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from paper.evidence import PAGE, main, measured, page_of, sections
from paper.measure import Row

from napari_cvdm.models.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture(scope="module")
def models(tiny_phase_model: Path, tiny_widefield_model: Path) -> tuple[Checkpoint, Checkpoint]:
    return load_checkpoint(tiny_phase_model), load_checkpoint(tiny_widefield_model)


def finite(row: Row) -> bool:
    return (
        re.search(r"\b(nan|inf)\b", row.value) is None
        and row.value != ""
        and (row.met is None) == (row.bar == "")
    )


@pytest.mark.stress
def test_every_section_runs_in_its_small_form_and_the_page_shows_it(
    models: tuple[Checkpoint, Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(*models, small=True)
    assert [row for _, rows in found for row in rows if not finite(row)] == []
    assert all(rows for _, rows in found)
    page, printed = page_of(*models, found), capsys.readouterr().out
    for section, rows in found:
        assert f"## {section.title}\n" in page and section.title in printed
        assert all(f"| {row.what} | {row.value} |" in page for row in rows)


def test_the_page_in_the_docs_has_the_sections_that_are_measured_each_with_a_command(
    models: tuple[Checkpoint, Checkpoint],
) -> None:
    text, known = PAGE.read_text(encoding="utf-8"), sections(*models)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [section.title for section in known]
    assert re.findall(r"^`python -m paper\.(\w+)`$", text, re.MULTILINE) == [
        section.module for section in known
    ]
    assert all(find_spec(f"paper.{section.module}") for section in known)


def test_the_small_command_writes_nothing(
    models: tuple[Checkpoint, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paper.evidence.sections", lambda *_: [])
    page = tmp_path / "evidence.md"
    main(["--small", "--page", str(page)])
    assert not page.exists()
