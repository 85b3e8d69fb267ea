"""Kills and power cuts of every command; `python -m tests.stress.kills` has more options."""

import sys
from pathlib import Path

import pytest
from tests.stress.kills import CUTS, JOBS, KILLS, Job, make_inputs, run_job


@pytest.mark.stress
@pytest.mark.skipif(sys.platform != "linux", reason="stopped processes are found in /proc there")
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_what_was_killed_and_gone_on_with_is_as_without_an_accident(
    job: Job, tmp_path: Path
) -> None:
    (tmp_path / "job").mkdir()
    _, failures = run_job(job, tmp_path / "job", make_inputs(tmp_path / "inputs"), KILLS, CUTS)
    assert not failures
