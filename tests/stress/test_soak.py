"""The soak finds a leak that is planted, and a lap of it can be run."""

from pathlib import Path

import pytest
import torch
from paper.gauges import LARGEST_LEAK_KIB, Gauges, heap_in_use, slope
from tests.stress.soak import Lap, laps, made_models


def gauges_of(memory: list[float], files: list[int]) -> Gauges:
    return Gauges(
        memory_kib=memory,
        heap_kib=memory,
        files=files,
        threads=[3] * len(files),
        objects=[1] * len(files),
        blocks=[1] * len(files),
    )


def test_what_stays_flat_is_met_and_what_leaks_is_missed() -> None:
    noise = [
        900.0,
        5.0,
        0.0,
        3.0,
        1.0,
        4.0,
        2.0,
        3.0,
        0.0,
        1.0,
        4.0,
        2.0,
    ]  # high at first: the warming up does not count
    flat = gauges_of([1e5 + jitter for jitter in noise], [7] * 12).rows()
    assert [row.met for row in flat] == [True, None, True, True, None, None]
    leaking = gauges_of(
        [1e5 + jitter + 2 * LARGEST_LEAK_KIB * lap for lap, jitter in enumerate(noise)],
        list(range(12)),
    ).rows()
    assert [row.met for row in leaking] == [False, None, False, True, None, None]


def test_a_steady_rise_is_its_own_slope() -> None:
    assert slope([2 * lap for lap in range(9)]) == pytest.approx((2.0, 2.0, 2.0))


def test_there_are_a_few_laps_in_any_case() -> None:
    assert list(laps(0.0, fewest=3)) == [0, 1, 2]


@pytest.mark.stress
def test_a_lap_is_run(tmp_path: Path) -> None:
    models = made_models(tmp_path / "models")
    (tmp_path / "lap").mkdir()
    Lap(models, tmp_path / "lap", 1).run()
    assert (tmp_path / "lap" / "out" / "mean.ome.tif").exists()


def test_the_heap_in_use_follows_what_is_allocated_and_freed() -> None:
    before = heap_in_use()
    held = torch.ones(1 << 22)
    grown = heap_in_use() - before
    assert grown >= held.nbytes
    del held
    assert heap_in_use() - before < grown / 2
