"""The evidence page is made of what its commands print.

Every measurement runs on small stand-ins for the real images, so that a broken one is noticed.
"""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from paper import evidence
from paper.evidence import (
    PAGE,
    SECTIONS,
    WORSE_TITLE,
    Section,
    compare_with_first,
    describe,
    main,
    make_page,
    measure_small,
    show,
)
from paper.measure import Row, print_rows

from napari_cvdm.models.checkpoint import Checkpoint, load_checkpoint

STAMP = "# 2026-01-01; phase-2shot 0, widefield-x2 0; torch 2, a processor\n"
ROWS = (
    Row(what="error of the mean", value="0.5 %", bar="<= 3 %", met=True),
    Row(what="a name that is longer than the column for names in what is printed", value="1, 2"),
    Row(what="gain", value="a value that is longer than its column", bar=">= +2 dB", met=False),
)


@pytest.fixture(scope="module")
def models(tiny_phase_model: Path, tiny_widefield_model: Path) -> tuple[Checkpoint, Checkpoint]:
    return load_checkpoint(tiny_phase_model), load_checkpoint(tiny_widefield_model)


def section(**fields: object) -> Section:
    given = {"name": "one", "title": "One", "commands": ("python -m paper.one",), "note": "A note."}
    return Section(**{**given, **fields})


def finite(row: Row) -> bool:
    return (
        re.search(r"\b(nan|inf)\b", row.value) is None
        and row.value != ""
        and (row.met is None) == (row.bar == "")
    )


@pytest.mark.stress
def test_every_measurement_runs_in_its_small_form(models: tuple[Checkpoint, Checkpoint]) -> None:
    found = measure_small(*models)
    assert [row for rows in found.values() for row in rows if not finite(row)] == []
    assert all(found.values())
    assert set(found) < {section.name for section in SECTIONS}


def test_printed_rows_are_read_back_into_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("Title: of the rows", ROWS)
    printed = capsys.readouterr().out
    shown = show(section(prefix=0), printed)
    for row in ROWS:
        verdict = {None: "", True: ": met", False: ": **missed**"}[row.met]
        assert f"| Title: {row.what} | {row.value} | {row.bar}{verdict} |" in shown
    only_bars = show(section(bars_only=True), printed)
    assert "1, 2" not in only_bars and "| error of the mean |" in only_bars


def test_a_printed_table_keeps_the_columns_that_are_asked_for() -> None:
    printed = "words\n\n| variant | a | b |\n| --- | --- | --- |\n| x | 1 | 2 |\n"
    assert show(section(), printed).splitlines()[-1] == "| x | 1 | 2 |"
    assert show(section(columns=("variant", "b")), printed) == (
        "| variant | b |\n| --- | --- |\n| x | 2 |\n"
    )


def test_earlier_weights_are_named_only_where_they_matter() -> None:
    assert "earlier weights (phase-2shot 0" in describe(section(), f"{STAMP}text\n")
    assert "earlier weights" not in describe(section(shipped=False), f"{STAMP}text\n")


def test_the_page_in_the_docs_has_every_section_with_its_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    titles = [*(one.title for one in SECTIONS), WORSE_TITLE]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles
    for one in SECTIONS:
        assert "\n".join(one.commands) in text and one.note in text
        for line in one.commands:
            words = shlex.split(line)
            if "-m" in words:
                assert find_spec(words[words.index("-m") + 1]) is not None


def test_what_the_first_version_measured_stands_beside_what_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence, "FIRST_VERSION", (("phase", "error of", "0.4 %", "A reason."),))
    saved = {"phase": "Title\n  error of the mean          0.5 %      <= 3 %  met\n"}
    shown = compare_with_first(saved)
    assert "| error of the mean | 0.4 % | 0.5 % |" in shown and "A reason." in shown
    assert compare_with_first({}) == ""


def test_a_command_runs_once_and_its_output_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "python -c 'print(7 * 6)' DIR"
    monkeypatch.setattr(evidence, "SECTIONS", (section(commands=(command,)),))
    page, outputs = tmp_path / "evidence.md", tmp_path / "outputs"
    main(["--outputs", str(outputs), "--page", str(page)])
    assert command in page.read_text("utf-8") and "\n42\n" in page.read_text("utf-8")
    monkeypatch.setattr("subprocess.run", None)  # nothing is run again
    saved = {"one": (outputs / "one.txt").read_text("utf-8")}
    main(["--outputs", str(outputs), "--page", str(page)])
    assert page.read_text("utf-8") == make_page(saved)


def test_the_small_command_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "small_measurements", lambda *_: {})
    page = tmp_path / "evidence.md"
    main(["--small", "--page", str(page)])
    assert not page.exists()
