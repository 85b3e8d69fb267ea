"""The scale of the sampler's fresh noise: its effects, its limits, and its choice."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_images import spots, widefield_request

from napari_cvdm.cli import main
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.evaluation.calibration import scores_by_scale, with_noise_scale
from napari_cvdm.evaluation.metrics import mean_score
from napari_cvdm.evaluation.pair_sets import PairSelection, Sampling, pair_set
from napari_cvdm.models.checkpoint import load_checkpoint, read_card, write_card
from napari_cvdm.reconstruction.reconstruct import reconstruct

pytestmark = pytest.mark.usefixtures("few_solver_steps")
QUICK = ["--samples", "4", "--steps", "2", "--field-px", "32", "--device", "cpu"]


def test_more_noise_means_more_spread_and_a_scale_of_one_changes_nothing(tiny_widefield_model):
    model, request = (
        load_checkpoint(tiny_widefield_model),
        replace(widefield_request(spots((24, 28)), samples=4), steps=4),
    )
    plain = drained(reconstruct(request, model))
    np.testing.assert_array_equal(
        drained(reconstruct(request, with_noise_scale(model, 1.0))).mean, plain.mean
    )
    less, more = (
        drained(reconstruct(request, with_noise_scale(model, scale))) for scale in (0.7, 1.4)
    )
    assert less.variance.mean() < plain.variance.mean() < more.variance.mean()
    assert model.network.config.noise_scale == 1  # the model that was given stays what it was


def test_a_solver_that_adds_no_noise_does_not_know_the_scale(tiny_widefield_model):
    model, request = (
        load_checkpoint(tiny_widefield_model),
        replace(widefield_request(spots((24, 28)), samples=2), steps=3, sampler="ode-2m"),
    )
    results = [
        drained(reconstruct(request, with_noise_scale(model, scale))).mean for scale in (0.7, 1.4)
    ]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("scale", [0.4, 2.1, float("nan"), "1"])
def test_a_scale_out_of_bounds_is_refused(tiny_widefield_model, scale):
    with pytest.raises(ValueError, match=r"a number from 0\.5 to 2 is needed"):
        with_noise_scale(load_checkpoint(tiny_widefield_model), scale)


def test_samples_are_not_added_to_those_of_another_scale(tiny_widefield_model):
    model, request = (
        load_checkpoint(tiny_widefield_model),
        widefield_request(spots((24, 28)), samples=2),
    )
    earlier = drained(reconstruct(request, model))
    with pytest.raises(RequestError, match="the model's noise scale changed"):
        drained(reconstruct(replace(request, samples=3), with_noise_scale(model, 1.2), earlier))


def test_scores_of_a_set_are_those_of_its_fields(tiny_widefield_model):
    model, sampling = (
        load_checkpoint(tiny_widefield_model),
        Sampling(samples=4, steps=2, device="cpu"),
    )
    pairs = pair_set("simulation", model.card, PairSelection(fields=2, field_px=32))
    both = drained(scores_by_scale(pairs, model, sampling, [1.0]))[1.0]
    singly = [
        drained(scores_by_scale(replace(pairs, pairs=(one,)), model, sampling, [1.0]))[1.0]
        for one in pairs.pairs
    ]
    assert both.crps == pytest.approx(np.mean([score.crps for score in singly]))
    assert both.ratio == pytest.approx(mean_score(singly).ratio) and both.coverage == pytest.approx(
        mean_score(singly).coverage
    )
    with pytest.raises(RequestError, match="adds no fresh noise"):
        drained(scores_by_scale(pairs, model, replace(sampling, sampler="ode-2m"), [1.0]))


def test_calibrate_keeps_the_scale_of_least_crps_and_results_say_it(
    tiny_widefield_model, tmp_path, capsys
):
    out, words = tmp_path / "model", ["--fields", "10", "--check", "0", *QUICK]
    assert (
        main(
            [
                "calibrate",
                str(tiny_widefield_model),
                "--out",
                str(out),
                "--noise-scales",
                "0.6",
                "1.8",
                *words,
            ]
        )
        == 0
    )
    said = [line for line in capsys.readouterr().out.splitlines() if "CRPS" in line]
    crps = {
        line.split(":")[0].split()[-1]: float(line.split("CRPS ")[1].split(",")[0]) for line in said
    }
    kept = read_card(out).noise_scale
    assert list(crps) == ["0.6", "1.8"] and f"{kept:g}" == min(crps, key=crps.__getitem__)
    assert read_card(out).calibration["fields"] == 10
    result = drained(
        reconstruct(widefield_request(spots((24, 28)), samples=2), load_checkpoint(out))
    )
    assert result.provenance.model["noise_scale"] == kept


def test_a_scale_that_is_not_allowed_leaves_nothing(tiny_widefield_model, tmp_path, capsys):
    out = tmp_path / "model"
    assert (
        main(
            [
                "calibrate",
                str(tiny_widefield_model),
                "--out",
                str(out),
                "--noise-scales",
                "1",
                "9",
                "--fields",
                "10",
                *QUICK,
            ]
        )
        == 2
    )
    assert "a number from 0.5 to 2" in capsys.readouterr().err and not out.exists()


def test_a_card_without_a_scale_is_read_as_one(tiny_widefield_model, tmp_path):
    card = load_checkpoint(tiny_widefield_model).card
    write_card(
        tmp_path,
        replace(
            card,
            network={name: value for name, value in card.network.items() if name != "noise_scale"},
        ),
    )
    assert (
        "noise_scale" not in json.loads((tmp_path / "card.json").read_text())["network"]
    )  # as models were written before there was one
    assert read_card(tmp_path).noise_scale == 1 and read_card(tmp_path).config().noise_scale == 1
