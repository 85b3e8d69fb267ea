"""The factor between spread and error.

It is valid for fields like those it was fitted on, kept in the card, and carried into results.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small_images import spots, widefield_request

from napari_cvdm.analysis.correlations import ResultFrame
from napari_cvdm.analysis.intervals import pixel_interval
from napari_cvdm.cli import main
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.core.statistics import (
    INTERVAL,
    STATISTICS,
    carried_calibration,
    normal_factor,
    spread_as,
)
from napari_cvdm.evaluation.calibration import (
    Calibration,
    calibrate_frame,
    conformal_factor,
    covered,
    left_out_coverage,
)
from napari_cvdm.io import read_image, write_image
from napari_cvdm.models.checkpoint import load_checkpoint, read_card, write_card
from napari_cvdm.reconstruction.reconstruct import reconstruct

FITTED = Calibration(
    factor=2.5,
    level=0.9,
    floor=0.0,
    samples=16,
    steps=3,
    sampler="sde-2m",
    set="invented",
    fields=40,
    date="2026-01-01",
)
QUICK = ["--samples", "2", "--steps", "2", "--field-px", "32", "--device", "cpu"]
pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


def exchangeable(rng: np.random.Generator, fields: int) -> list[np.ndarray]:
    """Scores of fields that differ in size and error; pixels of one field stay together."""
    return [
        np.abs(rng.normal(size=int(rng.integers(5, 60)))) * rng.lognormal(0, 0.7)
        for _ in range(fields)
    ]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_a_new_field_of_the_same_kind_is_covered_as_promised(level):
    rng = np.random.default_rng(0)
    rounds = [
        np.mean(covered(exchangeable(rng, 20), conformal_factor(exchangeable(rng, 20), level)))
        for _ in range(300)
    ]
    error = np.std(rounds) / np.sqrt(len(rounds))
    assert level - 3 * error <= np.mean(rounds) <= level + 1 / 21 + 3 * error


def test_leaving_fields_out_tells_the_coverage_of_new_ones():
    rng = np.random.default_rng(1)
    found = [np.mean(left_out_coverage(exchangeable(rng, 15), 0.8)) for _ in range(60)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)
    fields = exchangeable(rng, 12)
    others = [
        covered([one], conformal_factor(fields[:place] + fields[place + 1 :], 0.8))[0]
        for place, one in enumerate(fields)
    ]
    np.testing.assert_allclose(left_out_coverage(fields, 0.8), others)


def test_coverage_breaks_where_fields_are_not_exchangeable():
    rng = np.random.default_rng(2)
    factor = conformal_factor(exchangeable(rng, 60))
    assert np.mean(covered([4 * one for one in exchangeable(rng, 60)], factor)) < 0.7


@given(st.floats(0.1, 10), st.integers(0, 100))
def test_errors_in_another_unit_scale_the_factor_and_more_of_the_same_fields_change_little(
    scale, seed
):
    fields = exchangeable(np.random.default_rng(seed), 12)
    factor = conformal_factor(fields, 0.8)
    assert conformal_factor([scale * one for one in fields], 0.8) == pytest.approx(scale * factor)
    assert conformal_factor(fields[::-1], 0.8) == pytest.approx(factor)
    assert conformal_factor(fields * 3, 0.8) <= factor


@pytest.mark.parametrize(("fields", "level"), [(8, 0.9), (1, 0.6), (20, 0.0), (20, 1.0)])
def test_too_few_fields_and_impossible_levels_are_refused(fields, level):
    with pytest.raises(RequestError, match=r"allowed is|are needed"):
        conformal_factor([np.ones(3)] * fields, level)


def test_a_factor_is_carried_to_fewer_samples_as_their_deviation_is_less_known():
    values = FITTED.values()
    assert [
        carried_calibration(values, 16, steps, "sde-2m")["factor"] for steps in (3, 10)
    ] == pytest.approx([2.5, 2.5])  # more steps scatter no less
    fewer = carried_calibration(values, 4, 3, "sde-2m")
    assert (
        fewer["factor"] == pytest.approx(2.5 * normal_factor(4, 0.9) / normal_factor(16, 0.9))
        and fewer["fitted_factor"] == 2.5
    )
    assert [
        carried_calibration(*case)
        for case in (
            (values, 1, 3, "sde-2m"),
            (values, 16, 2, "sde-2m"),
            (values, 16, 3, "ddim"),
            ({}, 16, 3, "sde-2m"),
        )
    ] == [{}] * 4


def test_normal_factor_covers_draws_of_a_normal_distribution():
    rng = np.random.default_rng(3)
    for samples in (2, 4, 16):
        drawn = rng.normal(size=(samples + 1, 40_000))
        error, spread = drawn[1:].mean(axis=0) - drawn[0], drawn[1:].std(axis=0, ddof=1)
        assert np.mean(np.abs(error) <= normal_factor(samples, 0.8) * spread) == pytest.approx(
            0.8, abs=0.01
        )


@given(st.sampled_from((*STATISTICS, INTERVAL)), st.sampled_from((*STATISTICS, INTERVAL)))
def test_the_spread_goes_there_and_back(given_as, wanted):
    values = np.array([0.0, 0.1, 2.0], np.float32)
    np.testing.assert_allclose(
        spread_as(spread_as(values, given_as, wanted, 2.5), wanted, given_as, 2.5),
        values,
        rtol=1e-5,
    )


def test_an_interval_needs_a_factor():
    with pytest.raises(ValueError, match="known are"):
        spread_as(np.ones(3), STATISTICS[0], INTERVAL)


def test_the_card_keeps_a_calibration_and_results_carry_it(tiny_widefield_model, tmp_path):
    model = load_checkpoint(tiny_widefield_model)
    request = widefield_request(spots((24, 28)), samples=4)
    assert drained(reconstruct(request, model)).interval is None
    write_card(tmp_path, replace(model.card, calibration=FITTED.values()))
    assert read_card(tmp_path).calibration == FITTED.values()
    result = drained(reconstruct(request, replace(model, card=read_card(tmp_path))))
    factor = carried_calibration(FITTED.values(), 4, 3, "sde-2m")["factor"]
    np.testing.assert_allclose(result.interval, factor * result.std, rtol=1e-6)
    claim = pixel_interval(1.0, 0.5, {"model": result.provenance.model})
    assert claim.calibrated and claim.level == 0.9 and claim.high == pytest.approx(1 + 0.5 * factor)
    assert (
        drained(
            reconstruct(replace(request, steps=2), replace(model, card=read_card(tmp_path)))
        ).interval
        is None
    )


def test_calibrate_and_restore_write_the_interval(tiny_widefield_model, tmp_path, capsys):
    out = tmp_path / "calibrated"
    assert (
        main(
            [
                "calibrate",
                str(tiny_widefield_model),
                "--out",
                str(out),
                "--fields",
                "10",
                "--check",
                "3",
                *QUICK,
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "fitted on 10 fields" in said
        and "3 fields that were not used for fitting: coverage" in said
    )
    calibration = read_card(out).calibration
    assert (
        calibration["fields"] == 10
        and calibration["factor"] > 0
        and (out / "model.safetensors").read_bytes()
        == (tiny_widefield_model / "model.safetensors").read_bytes()
    )
    write_image(
        tmp_path / "in.ome.tif",
        np.asarray(spots((24, 28)).array),
        axes="YX",
        pixel_um=0.065,
        unit="counts",
        name="in",
    )
    words = [
        "restore",
        str(tmp_path / "in.ome.tif"),
        "--model",
        str(out),
        "--out",
        str(tmp_path / "result"),
        "--samples",
        "2",
        "--steps",
        "2",
    ]
    assert main(words) == 0
    interval, std = (
        np.asarray(read_image(tmp_path / "result" / f"{name}.ome.tif").array)
        for name in ("interval", "std")
    )
    np.testing.assert_allclose(interval, calibration["factor"] * std, rtol=1e-4)
    assert (
        json.loads((tmp_path / "result" / "provenance.json").read_text())["model"]["calibration"][
            "level"
        ]
        == 0.9
    )


def test_calibrating_in_place_is_seen_by_the_next_command(tiny_widefield_model, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for path in Path(tiny_widefield_model).iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    words = [
        "calibrate",
        str(model),
        "--in-place",
        "--fields",
        "2",
        "--check",
        "1",
        "--level",
        "0.6",
        *QUICK,
    ]
    assert main(words) == 0
    first = read_card(model).calibration
    assert main([*words, "--seed", "5"]) == 0
    assert first["level"] == 0.6 and read_card(model).calibration["set"] != first["set"]


def test_a_calibration_that_cannot_be_made_leaves_nothing(tiny_widefield_model, tmp_path, capsys):
    assert (
        main(
            [
                "calibrate",
                str(tiny_widefield_model),
                "--out",
                str(tmp_path / "out"),
                "--fields",
                "3",
                *QUICK,
            ]
        )
        == 2
    )
    assert "at least 9 are needed" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_result_with_a_truth_is_calibrated_by_its_blocks():
    rng = np.random.default_rng(4)
    spread, truth = rng.uniform(0.5, 2, (160, 160)), rng.normal(size=(160, 160))
    mean = truth + 3 * spread * rng.normal(size=truth.shape) + 7
    frame = ResultFrame(mean=mean, spread=spread, rate=spread, valid=np.ones(truth.shape, bool))
    found = drained(
        calibrate_frame(
            frame, truth, {"samples": 8, "steps": 10, "sampler": "sde-2m"}, "truth", phase=True
        )
    )
    assert found.fields == 25
    assert found.factor == pytest.approx(
        3 * stats.norm.ppf((1 + 0.9 * 26 / 25) / 2), rel=0.03
    )  # one block more counts as wrong
    with pytest.raises(RequestError, match="on the grid"):
        drained(calibrate_frame(frame, truth[1:], {"samples": 8}, "truth", phase=True))


@pytest.mark.parametrize("phase", [False, True])
def test_pixels_of_unknown_truth_are_as_pixels_that_are_not_valid(phase):
    rng = np.random.default_rng(5)
    spread, truth = rng.uniform(0.5, 2, (160, 160)), rng.normal(size=(160, 160))
    mean, known = truth + spread * rng.normal(size=truth.shape), np.ones(truth.shape, bool)
    known[:50, :70] = False
    how = {"samples": 8, "steps": 10, "sampler": "sde-2m"}
    found = [
        drained(
            calibrate_frame(
                ResultFrame(mean=mean, spread=spread, rate=spread, valid=valid),
                given_truth,
                how,
                "truth",
                phase=phase,
            )
        )
        for valid, given_truth in (
            (known, truth),
            (np.ones(truth.shape, bool), np.where(known, truth, np.nan)),
        )
    ]
    assert found[0] == found[1]
