"""The figures of an evaluation on data whose answer is known, and the commands that write them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from small_images import planes, spots

from napari_cvdm.analysis.correlations import over_fields, partial_correlation
from napari_cvdm.cli import evaluate as evaluating
from napari_cvdm.cli import main
from napari_cvdm.core.request import RequestError
from napari_cvdm.evaluation import pair_sets
from napari_cvdm.evaluation.evaluate import POOLED_PIXELS, field_report
from napari_cvdm.evaluation.metrics import (
    LEVELS,
    accuracy,
    auroc,
    ause,
    coverage,
    fitted_line,
    ms_ssim,
    path_nm,
    sparsification,
    spread_score,
)
from napari_cvdm.evaluation.pair_sets import (
    PairSelection,
    ReconstructedPair,
    Sampling,
    pair_set,
    reconstruct_pairs,
)
from napari_cvdm.evaluation.resolution import decorrelation, point_field, resolves_pair
from napari_cvdm.evaluation.summary import grouped
from napari_cvdm.io import write_image
from napari_cvdm.io.folders import NOTES
from napari_cvdm.models.checkpoint import load_checkpoint, read_card
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.training.sources import HELD_OUT_SEED

QUICK = ["--fields", "2", "--field-px", "32", "--samples", "4", "--steps", "1", "--device", "cpu"]
seeds = st.integers(0, 10_000)
pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


@pytest.mark.parametrize("samples", [4, 8, 32])
def test_coverage_of_a_normal_posterior_is_nominal_for_few_samples_too(samples):
    rng = np.random.default_rng(samples)
    spread = rng.uniform(0.1, 3, 40_000)
    drawn, truth = (
        spread * rng.normal(size=shape) for shape in ((samples, spread.size), spread.shape)
    )
    found = spread_score(drawn, truth)
    for level in LEVELS:
        assert found.coverage[f"{level:g}"] == pytest.approx(level, abs=0.01)
    assert found.ratio == pytest.approx(1, abs=0.02)
    assert (
        spread_score(0.5 * drawn, truth).ratio < 0.7
        and spread_score(0.5 * drawn, truth).coverage["0.9"] < 0.75
    )
    assert found.crps == pytest.approx(
        spread.mean() / np.sqrt(np.pi), rel=0.02
    )  # fair CRPS of a normal forecast, averaged over its own draws


@given(seeds)
def test_sparsification_of_a_perfect_spread_costs_nothing(seed):
    rng = np.random.default_rng(seed)
    error = rng.exponential(size=500)
    assert ause(2 * error + 1, error) == pytest.approx(0, abs=1e-12)
    assert ause(rng.random(500), error) > 0.1
    assert ause(-error, error) > ause(rng.random(500), error)
    assert sparsification(error, error)[0] == pytest.approx(1)


@given(seeds)
def test_auroc_does_not_change_with_the_unit_and_mirrors_with_the_sign(seed):
    rng = np.random.default_rng(seed)
    spread, error = rng.random(300), rng.random(300)
    assert auroc(np.exp(5 * spread), 3 * error) == pytest.approx(auroc(spread, error))
    assert auroc(-spread, error) == pytest.approx(1 - auroc(spread, error))
    assert auroc(error, error) == 1 and np.isnan(auroc(spread, np.zeros(300)))


def test_wider_intervals_cover_more():
    error, spread = np.random.default_rng(0).normal(size=(2, 1000))
    shares = [coverage(error, np.abs(spread), 8, level) for level in LEVELS]
    assert shares == sorted(shares)


def test_a_partial_correlation_forgets_what_a_third_image_explains():
    rng = np.random.default_rng(0)
    given_image = rng.normal(size=20_000)
    first, second = (given_image + 0.5 * rng.normal(size=20_000) for _ in range(2))
    assert abs(partial_correlation(first, second, given_image)) < 0.05
    assert partial_correlation(first, second, rng.normal(size=20_000)) > 0.7


def test_the_interval_over_fields_holds_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [over_fields(rng.exponential(size=30)) for _ in range(60)]
    held = np.mean([one.low <= 1 <= one.high for one in found])
    assert 0.8 <= held <= 1.0
    assert over_fields([2.0, float("nan"), 2.0]).mean == 2.0 and np.isnan(over_fields([]).mean)


@pytest.mark.parametrize("cutoff", [0.2, 0.4, 0.7])
@pytest.mark.parametrize("shape", [(128, 128), (150, 97)])
def test_the_resolution_of_a_band_limited_image_is_its_cutoff(cutoff, shape):
    rng = np.random.default_rng(0)
    y, x = (2 * np.fft.fftfreq(size) for size in shape)
    radius = np.hypot(y[:, None], x[None, :])
    image = np.fft.ifft2(
        np.fft.fft2(rng.normal(size=shape)) * (radius < cutoff) / (radius + 0.05)
    ).real
    image += 0.01 * image.std() * rng.normal(size=shape)
    found = decorrelation(7 * image + 3)
    assert found.cutoff == pytest.approx(cutoff, abs=0.03)
    assert found.resolution_um(0.1) == pytest.approx(0.2 / found.cutoff)
    assert np.isnan(decorrelation(np.ones(shape)).resolution_um(0.1))


def test_two_points_come_apart_when_they_are_farther_apart_than_the_blur():
    separations, shares = [2, 4, 6, 8, 12], []
    for separation in separations:
        image = np.zeros((64, 64))
        first, second = np.array([[32.0, 20.0]]), np.array([[32.0, 20.0 + separation]])
        for place in (first, second):
            image[tuple(place[0].astype(int))] = 1
        shares.append(resolves_pair(ndimage.gaussian_filter(image, 2), first, second).mean())
    assert shares == [0, 0, 1, 1, 1]


def test_the_truth_of_point_pairs_shows_them_where_they_were_put():
    where = point_field(0, WidefieldRanges(), (0.06, 0.24))
    found = [
        resolves_pair(where.pair.truth, first, second).mean()
        for first, second in zip(where.first, where.second, strict=True)
    ]
    assert found == [0, 1]
    middles = (where.first + where.second) / 2
    brightest = ndimage.maximum_filter(where.pair.truth, 5)
    values = ndimage.map_coordinates(where.pair.truth, middles[0].T.reshape(2, -1), order=1)
    assert (
        values > 0.8 * brightest[tuple(np.round(middles[0].T.reshape(2, -1)).astype(int))]
    ).all()


@given(seeds, st.floats(0.1, 100), st.floats(-50, 50))
def test_accuracy_does_not_rescale_and_a_fitted_line_takes_gain_and_offset_out(seed, gain, offset):
    rng = np.random.default_rng(seed)
    truth, valid = rng.normal(size=(24, 26)), np.ones((24, 26), bool)
    other = gain * truth + offset
    assert accuracy(other, truth, valid).mae == pytest.approx(
        np.abs(other - truth).mean(), rel=1e-6
    )
    assert accuracy(fitted_line(other, truth, valid), truth, valid).rmse < 1e-6
    assert accuracy(gain * (truth + 0.1), gain * truth, valid).psnr == pytest.approx(
        accuracy(truth + 0.1, truth, valid).psnr
    )
    assert accuracy(truth, 0 * truth, valid).psnr is None


def test_ms_ssim_is_one_for_the_same_image_and_falls_with_blur():
    pytest.importorskip("torchmetrics")
    image = np.random.default_rng(0).normal(size=(64, 64))
    assert ms_ssim(image, image, 4.0) == pytest.approx(1)
    assert ms_ssim(ndimage.gaussian_filter(image, 1), image, 4.0) < 0.9
    assert ms_ssim(image[:40], image[:40], 4.0) is None


def test_half_a_wave_of_phase_is_half_a_wave_of_path():
    assert path_nm(np.pi, 0.5) == pytest.approx(250)


def test_groups_hold_every_field_once():
    values = [3.0, 1.0, 2.0, 1.0, 9.0, None]
    places = sorted(place for group in grouped(values).values() for place in group)
    assert places == [0, 1, 2, 3, 4] and grouped(["b", "a", "b"]) == {"a": [1], "b": [0, 2]}
    assert grouped([2.0, 2.0]) == {"2": [0, 1]}


@pytest.mark.parametrize("ranges", [PhaseRanges(field_px=(32, 32)), WidefieldRanges(field_px=32)])
def test_simulated_pairs_are_fresh_and_repeatable_and_name_their_structure(ranges):
    first, again = (
        pair_sets.simulated_pairs(2, pair_sets.EVALUATION_SEED, ranges).pairs for _ in range(2)
    )
    other = pair_sets.simulated_pairs(1, pair_sets.CALIBRATION_SEED, ranges).pairs[0]()
    one, two = first[0](), first[1]()
    np.testing.assert_array_equal(one.truth, again[0]().truth)
    assert {"structure", "photons", "pixel_um"} <= set(one.tags)
    assert not np.array_equal(one.request.image.array, two.request.image.array)
    assert not np.array_equal(one.request.image.array, other.request.image.array)
    assert len({HELD_OUT_SEED, pair_sets.EVALUATION_SEED, pair_sets.CALIBRATION_SEED}) == 3


@pytest.mark.parametrize("name", ["dim", "other-optics"])
def test_sets_outside_the_training_lie_outside(name, tiny_phase_model, tiny_widefield_model):
    for folder in (tiny_phase_model, tiny_widefield_model):
        card = read_card(folder)
        inside = pair_sets.trained_ranges(card)
        changed = pair_sets.shift_ranges(name, inside)
        moved = [
            field
            for field in ("photons", "fresnel", "na")
            if getattr(changed, field, None) != getattr(inside, field, None)
        ]
        assert moved
        for field in moved:
            (low, high), (least, most) = getattr(changed, field), getattr(inside, field)
            assert high <= least or low >= most
    with pytest.raises(RequestError, match="neither one of"):
        pair_sets.pair_set("nowhere", card, pair_sets.PairSelection())


def test_evaluate_leaves_figures_and_a_table_of_the_same_numbers(
    tiny_phase_model, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["evaluate", str(tiny_phase_model), "--out", str(out), *QUICK]) == 0
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "table.md",
        "uncertainty.png",
        "example.png",
        NOTES,
    }
    values = json.loads((out / "metrics.json").read_text())
    assert values["set"]["fields"] + values["set"]["left_out"] == 2 and set(
        values["uncertainty"]
    ) == {"4"}
    rmse, table = values["accuracy"]["mean"]["rmse"]["mean"], (out / "table.md").read_text()
    assert rmse > 0 and f"{rmse:.3g}" in table and f"{rmse:.3g}" in capsys.readouterr().out
    assert values["accuracy"]["mean, with piston"]["rmse"]["mean"] >= rmse
    assert {"structure", "photons", "dz_um"} <= set(values["groups"])


def write_pairs(folder, task):
    """Two pairs that fit together, as a user would keep them."""
    for part in ("measured", "truth"):
        (folder / part).mkdir(parents=True)
    for number in range(2):
        if task == "phase":
            truth = np.exp(-6 * sum(axis**2 for axis in np.mgrid[-1:1:64j, -1:1:64j]))
            image, axes = planes((64, 64), number).array, "PYX"
        else:
            truth = (
                ndimage.gaussian_filter(
                    np.random.default_rng(number).normal(size=(96, 96)), 2
                ).clip(min=0)
                * 1000
            )
            image, axes = (
                ndimage.gaussian_filter(truth.reshape(48, 2, 48, 2).mean(axis=(1, 3)), 1)
                + spots((48, 48), number).array,
                "YX",
            )
        write_image(
            folder / "measured" / f"{number}.ome.tif",
            image,
            axes=axes,
            pixel_um=0.2,
            unit="counts",
            name="image",
        )
        write_image(
            folder / "truth" / f"{number}.ome.tif",
            truth,
            axes="YX",
            pixel_um=0.2 if task == "phase" else 0.1,
            unit="rad",
            name="truth",
        )


def test_measured_pairs_are_judged_in_their_folder(
    tiny_phase_model, tiny_widefield_model, tmp_path, capsys
):
    optics = ["--wavelength-um", "0.55", "--medium-index", "1.33", "--defocus-um", "-1", "1"]
    for task, model, words in (
        ("phase", tiny_phase_model, optics),
        ("widefield", tiny_widefield_model, []),
    ):
        write_pairs(tmp_path / task, task)
        assert (
            main(
                [
                    "evaluate",
                    str(model),
                    "--set",
                    str(tmp_path / task),
                    "--out",
                    str(tmp_path / f"{task}-out"),
                    *QUICK,
                    *words,
                ]
            )
            == 0
        ), capsys.readouterr().err
        values = json.loads((tmp_path / f"{task}-out" / "metrics.json").read_text())
        assert values["set"]["fields"] == 2 and values["set"]["said"].startswith("2 measured pairs")
    assert (
        main(
            [
                "evaluate",
                str(tiny_phase_model),
                "--set",
                str(tmp_path / "phase"),
                "--out",
                str(tmp_path / "none"),
                *QUICK,
            ]
        )
        == 2
    )
    assert "wavelength_um" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_benchmark_computes_nothing_twice(tiny_widefield_model, tmp_path, monkeypatch):
    words = [
        "benchmark",
        "--out",
        str(tmp_path / "all"),
        "--models",
        str(tiny_widefield_model),
        "--sets",
        "simulation",
        "dim",
        *QUICK,
        "--fields",
        "1",
    ]
    assert main(words) == 0
    folders = sorted(path for path in (tmp_path / "all").iterdir() if path.is_dir())
    table, stamps = (
        (tmp_path / "all" / "table.md").read_text(),
        [(path / "metrics.json").stat().st_mtime_ns for path in folders],
    )
    assert len(folders) == 2 and table.count("tiny-widefield-x2") == 2
    # A power cut emptied it: only this one is computed again.
    (folders[0] / "metrics.json").write_bytes(b"")
    called = []
    real = evaluating.evaluate_into
    monkeypatch.setattr(
        evaluating, "evaluate_into", lambda *parts: called.append(parts[-1]) or real(*parts)
    )
    assert main(words) == 0
    assert len(called) == 1 and (folders[1] / "metrics.json").stat().st_mtime_ns == stamps[1]
    assert main([*words, "--sets", "dim", "--seed", "3"]) == 0 and len(called) == 2


def test_errors_of_a_classical_method_have_the_unit_of_a_models(tiny_widefield_model):
    model = load_checkpoint(tiny_widefield_model)
    pairs = pair_set("simulation", model.card, PairSelection(fields=1, field_px=32))
    sampling = Sampling(samples=2, steps=1, device="cpu")
    units = [
        step.unit
        for method in (model, load_method("richardson-lucy"))
        for step in reconstruct_pairs(pairs, method, sampling)
        if isinstance(step, ReconstructedPair)
    ]
    assert units[0] == units[1] > 1
    (first,) = [
        step
        for step in reconstruct_pairs(pairs, model, sampling)
        if isinstance(step, ReconstructedPair)
    ]
    assert first.reconstruction.provenance.estimated["frames"][0][
        "intensity_scale"
    ] == pytest.approx(units[0])


def test_curves_show_pixels_of_the_whole_field(tiny_denoising_model):
    model = load_checkpoint(tiny_denoising_model)
    pairs = pair_set("simulation", model.card, PairSelection(fields=1, field_px=96))
    (found,) = [
        step
        for step in reconstruct_pairs(pairs, model, Sampling(samples=4, steps=2, device="cpu"))
        if isinstance(step, ReconstructedPair)
    ]
    rows, columns = found.pixels()
    spread = found.reconstruction.std[rows, columns] / found.unit
    pooled = field_report(found).pooled[0]
    assert pooled.size <= POOLED_PIXELS < spread.size
    assert np.isin(pooled, spread[rows >= 48]).mean() == pytest.approx(0.5, abs=0.1)
