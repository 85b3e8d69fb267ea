"""A few broken files for every reader; `python -m benchmarks.fuzz` reads them by the thousand."""

from pathlib import Path

import pytest
from benchmarks.fuzz import QUIET, main, read_once
from benchmarks.fuzzing.targets import Files, Target, targets
from hypothesis import given, settings

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


def test_the_command_counts_inputs_and_finds_a_planted_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--minutes", "0.02", "--only", "npy", "--keep", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "escapes 0" in said and "npy" in said
