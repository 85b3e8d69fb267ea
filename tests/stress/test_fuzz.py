"""A few broken files for every reader; `python -m tests.stress.fuzz` reads them by the thousand."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from tests.stress.fuzz import QUIET, count, read_once, report
from tests.stress.fuzzing.targets import Files, Target, targets

EXAMPLES = 8
FEW = settings(QUIET, max_examples=EXAMPLES, derandomize=True)


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.name)
def test_a_broken_file_is_read_or_refused_in_words(target: Target, tmp_path: Path) -> None:
    seen = []

    @FEW
    @given(target.files)
    def law(files: Files) -> None:
        seen.append(read_once(target, files, tmp_path / "input"))

    law()
    assert len(seen) == EXAMPLES


def test_a_planted_fault_is_counted_and_its_input_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fall(folder: Path) -> None:
        raise ZeroDivisionError("planted")

    counts: Counter[str] = Counter()
    for _ in range(2):
        count(replace(targets()["npy"], act=fall), tmp_path, counts, {"a.npy": b"given"})
    report("npy", counts)
    said = capsys.readouterr().out
    assert "escapes 2" in said and "2 x ESCAPE ZeroDivisionError: 'planted'" in said.replace(
        '"', ""
    )
    assert [path.read_bytes() for path in (tmp_path / "kept").rglob("*.npy")] == [b"given"]
