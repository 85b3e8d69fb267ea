"""The reviewer's battery: every test of it runs, and what it measures is what was planted."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper.blank import standing_out
from paper.reviewer.__main__ import main, said_by_the_spread
from paper.reviewer.bench import SMALL, Bench, Case
from paper.reviewer.camera import marked_share, through_eight_bits, with_bad_pixels
from paper.reviewer.invariance import overlap, part
from paper.reviewer.measures import auroc, false_structure_area, measured
from paper.reviewer.registry import PHASE, TESTS, WIDEFIELD

from napari_cvdm.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("few_solver_steps")
SIDE = 64
FIELDS = np.random.default_rng(0)


@pytest.fixture(scope="module")
def benches(tiny_phase_model, tiny_widefield_model):
    return {
        task: Bench(model=load_checkpoint(path), plan=SMALL)
        for task, path in ((PHASE, tiny_phase_model), (WIDEFIELD, tiny_widefield_model))
    }


@pytest.mark.stress
@pytest.mark.parametrize(
    ("name", "task"), [(name, task) for name, test in TESTS.items() for task in test.tasks]
)
def test_every_test_says_something_in_finite_numbers_and_draws_it(name, task, benches):
    finding = TESTS[name].run(benches[task])
    assert finding.rows
    for row in finding.rows:
        assert not re.search(r"\b(nan|inf)\b", row.value), row
        assert re.search(r"\d", row.value), row
        assert (row.met is None) == (row.bar == ""), row
    assert len(finding.figure.axes) >= 5
    assert np.isfinite(list(finding.ratios.values())).all()


def perfect(bench, scene):
    """An answer that is the truth, and sure of it."""
    result = bench.untouched.result
    mean = scene.truth.astype(np.float32)
    return Case(
        name="perfect", scene=scene, result=replace(result, mean=mean, variance=np.zeros_like(mean))
    )


@pytest.mark.parametrize("task", [PHASE, WIDEFIELD])
def test_a_perfect_answer_has_no_false_structure_no_bias_and_no_error(task, benches):
    bench = benches[task]
    found = measured(perfect(bench, bench.scene))
    assert found.false_area == 0
    assert found.bias == pytest.approx(0, abs=1e-5)
    assert found.error == pytest.approx(0, abs=1e-5)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    level=st.floats(-5, 5),
    both_signs=st.booleans(),
)
def test_the_false_structure_area_is_the_area_that_was_planted(height, width, level, both_signs):
    truth = np.zeros((SIDE, SIDE))
    found = truth + level
    found[10 : 10 + height, 20 : 20 + width] += 2.0
    assert (
        false_structure_area(found, truth, 1.0, both_signs=both_signs) == height * width / SIDE**2
    )
    assert false_structure_area(truth + level, truth, 1.0, both_signs=both_signs) == 0


def test_dips_are_structure_of_a_phase_only():
    truth, found = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    found[:8, :8] = -2.0
    assert false_structure_area(found, truth, 1.0) == 0
    assert false_structure_area(found, truth, 1.0, both_signs=True) == 1 / 64


def test_what_stands_beside_true_structure_is_not_called_false_but_far_from_it_is():
    truth = np.zeros((SIDE, SIDE))
    truth[30:34, 30:34] = 10.0
    blurred, invented = truth.copy(), truth.copy()
    blurred[28:36, 28:36] = 10.0
    invented[5:9, 5:9] = 10.0
    assert false_structure_area(blurred, truth, 1.0) == 0
    assert false_structure_area(invented, truth, 1.0) > 0


def test_on_a_blank_field_it_is_the_measure_of_the_blank_benchmark():
    counts, image = FIELDS.normal(100, 5, (SIDE, SIDE)), FIELDS.normal(0, 6, (2 * SIDE, 2 * SIDE))
    assert false_structure_area(image, np.zeros_like(image), 1.5 * counts.std()) == standing_out(
        image, counts
    )


def test_a_spread_that_is_the_error_finds_all_large_errors_and_a_flat_one_none():
    error = FIELDS.exponential(size=1000)
    assert auroc(error, error) == 1
    assert auroc(-error, error) == 0
    assert auroc(np.ones(1000), error) == 0.5


@pytest.mark.parametrize("task", [PHASE, WIDEFIELD])
def test_eight_bits_are_wrong_by_half_a_step_at_most_and_jpeg_by_more(task, benches):
    array = benches[task].scene.array
    step = float(np.ptp(array)) / 255
    away = np.abs(through_eight_bits(array, None) - array).max()
    assert away <= step * 0.51
    assert np.abs(through_eight_bits(array, 50) - array).max() > away


def test_bad_pixels_are_the_same_in_both_planes_and_nothing_else_changes(benches):
    array = benches[PHASE].scene.array
    changed = with_bad_pixels(array, -1.0) != array
    assert (changed[0] == changed[1]).all()
    assert changed[0].sum() == round(0.002 * array[0].size)


@pytest.mark.parametrize("task", [PHASE, WIDEFIELD])
def test_parts_of_one_truth_agree_where_they_overlap(task, benches):
    bench = benches[task]
    window = bench.side - 4
    first, second = (perfect(bench, part(bench.scene, start, window)) for start in (0, 4))
    away = overlap(first, second, 4)
    assert away.size
    assert (away == 0).all()


@pytest.mark.parametrize("task", [PHASE, WIDEFIELD])
def test_the_share_of_cut_pixels_that_are_marked_is_none_or_all(task, benches):
    untouched = benches[task].untouched
    cut = np.ones(untouched.scene.array.shape, bool)
    blind = replace(
        untouched, result=replace(untouched.result, valid=np.zeros_like(untouched.result.valid))
    )
    assert marked_share(untouched, untouched, cut) == 0
    assert marked_share(blind, untouched, cut) == 1
    assert marked_share(blind, untouched, ~cut) == 0


def test_the_summary_counts_what_the_spread_does_not_say():
    said = said_by_the_spread([(2.0, 1.0), (3.0, 2.0), (1.0, 5.0)])
    assert "in 2 of 3 cases; in 1 of them" in said


def test_the_command_writes_figures_and_one_table_of_all_that_was_run(
    tiny_widefield_model, tmp_path, capsys
):
    main(
        [
            "half-pixel",
            "blank",
            "--small",
            "--model",
            str(tiny_widefield_model),
            "--out",
            str(tmp_path),
        ]
    )
    folder = tmp_path / "tiny-widefield-x2"
    assert {path.name for path in folder.glob("*.png")} == {"blank.png", "half-pixel.png"}
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert text.index("**blank**") < text.index("**half-pixel**")
    assert "0 photons" in capsys.readouterr().out
