"""The benchmarks of scale measure what they say.

The paths that they compare give the same pixels. No test here depends on a clock.
"""

import re

import numpy as np
import pytest

pytest.importorskip("zarr", reason="zarr is not installed: pip install 'napari-cvdm[zarr]'")
pytest.importorskip(
    "resource", reason="the peak memory of a process is read from resource, which Windows lacks"
)

from paper import same_pixels
from paper.measure import tiny_model
from paper.scale import main, small_tables

pytestmark = pytest.mark.usefixtures("few_solver_steps")
SIDE = 64  # of the image that is compared: four blocks, two of them narrow


def test_every_table_has_finite_rows() -> None:
    rows = small_tables()
    assert [row.what.count("peak memory") for row in rows].count(1) == 2
    for row in rows:
        assert all(
            np.isfinite(float(number))
            for number in re.findall(r"nan|inf|\d[\d.]*(?:e[+-]\d+)?", row.value)
        ), row


def test_blocks_and_a_job_that_is_taken_up_give_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(same_pixels, "SIDE", SIDE)
    rows = same_pixels.scale_rows(tiny_model())
    assert len(rows) == 6 and all(row.met for row in rows), rows


def test_blocks_that_see_too_little_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_pixels, "SIDE", SIDE)
    monkeypatch.setattr(same_pixels, "SEEN_PX", 0)
    rows = same_pixels.scale_rows(tiny_model())
    assert not any(row.met for row in rows[:3])
    assert all(row.met for row in rows[3:])


def test_a_halo_without_a_spread_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["halo", "--samples", "1"])
