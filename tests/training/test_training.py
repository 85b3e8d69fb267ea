"""Training: pure data, losses that fall, resumed runs that equal uninterrupted ones."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from short_trainings import write_short_recipe

from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError, TrainRequest
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.models.cvdm import CVDM, LARGEST_LOG_STD
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import simulate_phase
from napari_cvdm.training.loop import train
from napari_cvdm.training.parallel import Processes
from napari_cvdm.training.pool import Batch, FieldPool
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.sources import SimulatedFields
from napari_cvdm.training.stages import DiffusionObjective, NoiseDraw, TrainingDiverged, stages_of
from napari_cvdm.training.state import load_state

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL_FIELD = PhaseRanges(field_px=(64, 64))


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """The smoke recipe, trained once."""
    out = tmp_path_factory.mktemp("smoke")
    return out, [
        step
        for step in train(
            TrainRequest(recipe=str(RECIPES / "smoke.toml"), out=str(out), device="cpu")
        )
        if step.terms
    ]


def test_training_lowers_both_losses(smoke_run):
    _, lines = smoke_run
    mean, diffusion = (
        [line for line in lines if line.stage == stage] for stage in ("mean", "diffusion")
    )
    learned, baseline = (
        sum(line.terms[name] for line in mean) for name in ("mean", "baseline")
    )  # a single batch scatters
    assert learned < baseline
    assert diffusion[-1].terms["network"] < diffusion[0].terms["network"]
    assert [line.step for line in mean] == [20, 40, 60, 80]


def test_training_leaves_a_checkpoint_that_loads_and_a_log(smoke_run):
    out, lines = smoke_run
    model = load_checkpoint(out)
    assert model.card.name == "smoke"
    assert model.card.training["recipe"] == "smoke.toml"
    assert model.card.optics["na"] == (0.4, 1.49)
    assert float(model.network.residual_scale) > 0
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert len(rows) == len(lines)
    assert float(rows[-1]["network"]) == pytest.approx(lines[-1].terms["network"], rel=1e-4)
    rates = [float(row["learning_rate"]) for row in rows if row["stage"] == "diffusion"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-3 * rates[0]


def test_the_averaged_weights_are_the_ones_that_are_kept(smoke_run):
    state = load_state(smoke_run[0], read_recipe(RECIPES / "smoke.toml").fingerprint)
    kept = load_checkpoint(smoke_run[0]).network.state_dict()
    name = next(name for name in kept if name.startswith("denoiser") and kept[name].ndim == 4)
    averaged, last = state.tensors[f"average.module.{name}"], state.tensors[f"network.{name}"]
    torch.testing.assert_close(kept[name], averaged, rtol=2e-3, atol=1e-4)
    assert (kept[name] - averaged).abs().sum() < (kept[name] - last).abs().sum()


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A short recipe, and the folder of its uninterrupted training."""
    folder = tmp_path_factory.mktemp("short")
    recipe = write_short_recipe(folder / "short.toml", 8, log_every=3, save_every=4)
    out = folder / "whole"
    list(train(TrainRequest(recipe=str(recipe), out=str(out), device="cpu")))
    return recipe, out


@pytest.mark.parametrize(
    ("stop_after", "stage"), [(5, "mean"), (9, "diffusion"), (14, "diffusion")]
)
def test_a_resumed_run_ends_with_the_same_weights(short_run, tmp_path, stop_after, stage):
    """A run stopped after any step, then resumed, gives the same weights and log.

    It may stop between two lines of the log.
    """
    recipe, uninterrupted = short_run
    request = TrainRequest(recipe=str(recipe), out=str(tmp_path), device="cpu")
    steps = train(request)
    for _ in range(stop_after):
        next(steps)
    steps.close()
    state = load_state(tmp_path, read_recipe(request.recipe).fingerprint)
    assert (state.stage, state.step) == (stage, stop_after if stage == "mean" else stop_after - 8)
    list(train(replace(request, resume=True)))
    assert (tmp_path / "log.csv").read_bytes() == (uninterrupted / "log.csv").read_bytes()
    whole, resumed = (
        load_checkpoint(folder).network.state_dict() for folder in (uninterrupted, tmp_path)
    )
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(RequestError, match="resume"):
        list(
            train(
                TrainRequest(
                    recipe=str(RECIPES / "smoke.toml"), out=str(tmp_path), resume=True, device="cpu"
                )
            )
        )


def test_a_state_of_another_recipe_is_refused(smoke_run, tmp_path):
    text = (RECIPES / "smoke.toml").read_text()
    (tmp_path / "smoke.toml").write_text(text.replace("2e-3", "3e-3"))
    state = (smoke_run[0] / "training.safetensors").read_bytes()
    (tmp_path / "training.safetensors").write_bytes(state)
    request = TrainRequest(
        recipe=str(tmp_path / "smoke.toml"), out=str(tmp_path), resume=True, device="cpu"
    )
    with pytest.raises(RequestError, match="another recipe"):
        list(train(request))


def test_a_trained_model_can_be_read_by_whoever_may_read_its_folder(smoke_run):
    modes = {
        (smoke_run[0] / name).stat().st_mode & 0o777
        for name in ("model.safetensors", "card.json", "training.safetensors", "log.csv")
    }
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("log_every = 20", "log_every"),
        ("save_every = 40", "save_every"),
        ("pool_fields = 8", "pool_fields"),
        ("batch = 4", "batch"),
        ("patch_px = 32", "patch_px"),
        ("diffusion_steps = 80", "diffusion_steps"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-2", "'x'", "nan"])
def test_a_plan_that_cannot_be_carried_out_is_refused(tmp_path, given, words, value):
    path = tmp_path / "wrong.toml"
    path.write_text(
        (RECIPES / "smoke.toml").read_text().replace(given, f"{given.split()[0]} = {value}")
    )
    with pytest.raises(RequestError, match=words):
        read_recipe(path)


@pytest.mark.parametrize("side", [33, 4096])
def test_a_patch_must_fit_the_network_and_the_field(tmp_path, side):
    path = tmp_path / "wrong.toml"
    path.write_text(
        (RECIPES / "smoke.toml").read_text().replace("patch_px = 32", f"patch_px = {side}")
    )
    with pytest.raises(RequestError, match=f"patch_px is {side}"):
        read_recipe(path)


@pytest.mark.usefixtures("few_solver_steps")
@pytest.mark.parametrize("ranges", [SMALL_FIELD, WidefieldRanges(field_px=48)])
def test_data_are_a_pure_function_of_seed_and_step(ranges):
    late = FieldPool(SimulatedFields(ranges=ranges, seed=7), 3, 0.5, 7).batch(5, 3, 32)
    walked = FieldPool(SimulatedFields(ranges=ranges, seed=7), 3, 0.5, 7)
    for step in range(6):
        batch = walked.batch(step, 3, 32)
    for name in ("channels", "initial_estimate", "truth", "weight"):
        assert torch.equal(getattr(batch, name), getattr(late, name)), name


def test_a_patch_and_its_truth_are_turned_together():
    """The truth of a super-resolution patch, binned, matches the image.

    The patch may be cut anywhere, turned or mirrored.
    """
    pool = FieldPool(
        SimulatedFields(
            ranges=WidefieldRanges(
                field_px=64, photons=(3000, 3000), background=(0.01, 0.01), haze=(0, 0)
            ),
            seed=1,
        ),
        6,
        0,
        1,
    )
    batch = pool.batch(0, 12, 48)
    binned = torch.nn.functional.avg_pool2d(batch.truth, 2)
    for image, truth in zip(batch.channels[:, 0], binned[:, 0], strict=True):
        if truth.std() > 0.05:
            assert np.corrcoef(image.ravel(), truth.ravel())[0, 1] > 0.6


def test_blank_fields_are_among_the_data():
    flat = [
        not simulate_phase(seed, PhaseRanges(field_px=(32, 32))).phase.any() for seed in range(120)
    ]
    assert 0.01 < np.mean(flat) < 0.2


def test_denoiser_and_schedule_learn_from_their_own_losses():
    """Without `joint`, the denoiser's gradient does not depend on the schedule's losses.

    The schedule's gradient does not depend on the denoiser's losses.
    """
    recipe = read_recipe(RECIPES / "smoke.toml")
    torch.manual_seed(0)
    network = CVDM(replace(recipe.network, residual_std=recipe.network.mean))
    stage = stages_of(network, recipe.plan, "all")[1]
    processes = Processes("cpu", "fp32", 1, 2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    batch = FieldPool(SimulatedFields(ranges=WidefieldRanges(field_px=32), seed=0), 2, 0, 0).batch(
        0, 2, 32
    )
    draw = NoiseDraw.of_step(batch.truth.shape, 0, 0)
    processes.backward(stage.objective(batch, draw), stage.routes)
    weight, clock, std = (
        network.denoiser.entry.weight,
        network.clock.weights,
        network.std_network.entry.weight,
    )
    got = weight.grad.clone(), clock.grad.clone(), std.grad.clone()
    terms = stage.objective(batch, draw)
    (denoiser,) = torch.autograd.grad(terms["network"], weight, retain_graph=True)
    (schedule,) = torch.autograd.grad(terms["schedule"], clock, retain_graph=True)
    (likelihood,) = torch.autograd.grad(terms["likelihood"], std)
    torch.testing.assert_close(got[0], denoiser)
    torch.testing.assert_close(got[1], schedule)
    torch.testing.assert_close(got[2], likelihood)


@pytest.mark.parametrize("error", [0.1, 0.5])
def test_the_predicted_error_that_is_most_likely_is_that_of_the_residual(error):
    """If the mean is wrong by one number, the likelihood is best where sigma is that number."""
    recipe = read_recipe(RECIPES / "smoke.toml")
    network = CVDM(replace(recipe.network, residual_std=recipe.network.mean))
    network.residual_scale.fill_(0.2)
    objective, shape = DiffusionObjective(network, 1e-3), (2, 1, 32, 32)
    channels = torch.zeros(
        2,
        network.config.condition_channels,
        *(side // network.config.upsampling for side in shape[2:]),
    )
    batch = Batch(
        channels=channels,
        initial_estimate=torch.zeros(shape),
        truth=torch.full(shape, error),
        weight=torch.ones(2, 1, 1, 1),
    )

    def slope(std: float) -> float:
        bias = network.std_network.exit.bias
        torch.nn.init.constant_(
            bias, LARGEST_LOG_STD * math.atanh(math.log(std / 0.2) / LARGEST_LOG_STD)
        )
        (gradient,) = torch.autograd.grad(
            objective(batch, NoiseDraw.of_step(shape, 0, 0))["likelihood"], bias
        )
        return float(gradient.sum())

    assert slope(error) == pytest.approx(0, abs=1e-5)
    assert slope(0.8 * error) < -0.1 < 0.1 < slope(1.25 * error)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path):
    recipe = read_recipe(path)
    assert recipe.plan.patch_px % (recipe.network.alignment * recipe.network.condition_fold) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task = 'phase-4shot'", "phase-2shot"),
        ("task = 'phase-2shot'\n[plan]\nstepps = 3", "stepps"),
        ("task = 'phase-2shot'\n[simulation]\nphotonz = [1, 2]", "photonz"),
        ("task = 'phase-2shot'\n[network]\nprediction = 'x'", "prediction"),
        ("task = ", "cannot be read"),
        ("task = 'phase-2shot'", "mean_steps"),
    ],
)
def test_a_wrong_recipe_is_refused_with_words(tmp_path, text, words):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises((RequestError, ValueError), match=words):
        read_recipe(path)


@pytest.mark.usefixtures("few_solver_steps")
def test_the_published_choices_train_and_sample(tmp_path):
    """The paper's preset in small.

    It has eps-prediction, the image itself as target, one joint loss and ancestral sampling.
    """
    text = (
        (RECIPES / "paper.toml")
        .read_text()
        .replace("[32, 64, 96]", "[8, 16]")
        .replace("[1, 2, 3]", "[1, 1]")
        .replace("16000", "6")
    )
    text = text.replace("[144, 256]", "[64, 64]").replace(
        "patch_px = 144", "patch_px = 32\npool_fields = 2\nfields_per_step = 0.1\nlog_every = 3"
    )
    (tmp_path / "paper.toml").write_text(text)
    lines = list(
        train(
            TrainRequest(
                recipe=str(tmp_path / "paper.toml"), out=str(tmp_path / "out"), device="cpu"
            )
        )
    )
    model = load_checkpoint(tmp_path / "out")
    assert {line.stage for line in lines} == {"diffusion"}
    assert model.network.mean is None
    assert model.card.network["prediction"] == "eps"
    pair = simulate_phase(3, SMALL_FIELD)
    image = ImageStack(array=pair.planes, axes="PYX", pixel_um=pair.microscope.pixel_um)
    optics = {
        "wavelength_um": pair.microscope.wavelength_um,
        "medium_index": pair.microscope.medium_index,
        "defocus_um": pair.defocus_um,
    }
    steps = list(
        reconstruct(
            ReconstructionRequest(
                image=image,
                model="paper",
                samples=1,
                steps=4,
                sampler="ancestral",
                device="cpu",
                **optics,
            ),
            model,
        )
    )
    assert steps[-1].done == 4


def smoke_with(tmp_path, *, steps=4, **changes):
    """The smoke recipe, shortened, with some entries of its plan changed."""
    text = (
        (RECIPES / "smoke.toml")
        .read_text()
        .replace("_steps = 80", f"_steps = {steps}")
        .replace("log_every = 20", "log_every = 2")
    )
    path = tmp_path / "recipe.toml"
    path.write_text(text + "".join(f"{name} = {value}\n" for name, value in changes.items()))
    return TrainRequest(recipe=str(path), out=str(tmp_path / "out"), device="cpu")


@pytest.mark.usefixtures("few_solver_steps")
def test_mixed_precision_trains_every_part(tmp_path):
    """With bf16 every parameter stays finite and moves.

    bf16 once gave NaN for the dilated layers of the rate network.
    """
    lines = list(train(smoke_with(tmp_path, precision='"bf16"')))
    assert all(np.isfinite(list(line.terms.values())).all() for line in lines)
    weights = load_checkpoint(tmp_path / "out").network.state_dict()
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert weights["rate_network.layers.6.weight"].abs().max() > 0


@pytest.mark.usefixtures("few_solver_steps")
def test_a_loss_that_is_no_number_stops_with_words(tmp_path):
    with pytest.raises(TrainingDiverged, match="smaller learning_rate"):
        list(
            train(smoke_with(tmp_path, steps=30, alpha="1e300"))
        )  # beyond float32, so infinite in the loss
