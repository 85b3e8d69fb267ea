"""The benchmarks of speed measure what they say; none of these laws has a clock in it."""

import math
import re
import subprocess
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paper import speed
from paper.evaluations import (
    ALONE,
    METHODS,
    WARM,
    Quality,
    append_row,
    posterior,
    read_rows,
    smallest_within,
)
from paper.measure import finish, tiny_model
from paper.published import (
    NOISE_PARAMETERS,
    SCHEDULE_PARAMETERS,
    Published,
    parameter_count,
    published_sample,
)
from paper.same_pixels import speed_rows
from paper.speed import PARTS, overhead, request_of_output, small_tables
from torch.utils._python_dispatch import TorchDispatchMode

from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.diffusion.process import PREDICTIONS
from napari_cvdm.models import cvdm
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.tiled import network_on
from napari_cvdm.reconstruction import sampling as frame

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


@pytest.fixture(scope="module")
def published() -> Published:
    """The published networks with random weights."""
    return Published.build()


def test_the_published_networks_have_the_published_size(published: Published) -> None:
    assert parameter_count([published.noise]) == pytest.approx(NOISE_PARAMETERS, rel=0.01)
    assert parameter_count([published.rate, published.tau, published.tau]) == pytest.approx(
        SCHEDULE_PARAMETERS, rel=0.01
    )


def test_the_published_procedure_evaluates_the_schedule_at_every_step(published: Published) -> None:
    calls = {"schedule": 0, "noise": 0}

    def count(name: str) -> object:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    hooks = [
        published.rate.register_forward_hook(count("schedule")),
        published.noise.register_forward_hook(count("noise")),
    ]
    images = list(published_sample(published, torch.zeros(1, 2, 32, 16), steps=3))
    for hook in hooks:
        hook.remove()
    assert calls == {"schedule": 3, "noise": 3}
    assert all(image.shape == (1, 1, 32, 16) and bool(image.isfinite().all()) for image in images)


@pytest.mark.parametrize("sampler", ["sde-2m", "ode-2m", "ddim", "ancestral"])
def test_samples_drawn_together_are_those_drawn_one_by_one(
    tiny_phase_model: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    together = drained(sampler, tiny_phase_model)
    monkeypatch.setattr(frame, "SAMPLES_TOGETHER", 1)
    alone = drained(sampler, tiny_phase_model)
    assert np.array_equal(together.samples, alone.samples)
    assert np.array_equal(together.variance, alone.variance)


def test_a_true_batch_gives_the_same_samples_to_rounding(
    tiny_phase_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = drained("sde-2m", tiny_phase_model)
    monkeypatch.setattr(cvdm, "prefers_sequential", lambda device: False)
    batched = drained("sde-2m", tiny_phase_model)
    np.testing.assert_allclose(
        batched.samples, one_by_one.samples, atol=1e-5 * float(np.abs(one_by_one.samples).max())
    )


def test_bf16_moves_the_samples_far_less_than_they_scatter(
    tiny_phase_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, narrow = (
        drained("sde-2m", tiny_phase_model),
        drained("sde-2m", tiny_phase_model, precision="bf16"),
    )
    moved = np.sqrt(np.mean((narrow.samples - exact.samples) ** 2))
    assert 0 < moved < 0.05 * np.sqrt(exact.variance.mean())
    assert narrow.provenance.settings["precision"] == "bf16"
    monkeypatch.setattr(frame, "SAMPLES_TOGETHER", 1)
    assert np.array_equal(
        narrow.samples, drained("sde-2m", tiny_phase_model, precision="bf16").samples
    )


def test_a_precision_that_is_not_known_is_refused(tiny_phase_model: Path) -> None:
    with pytest.raises(RequestError, match="fp32, bf16"):
        drained("sde-2m", tiny_phase_model, precision="fp8")


def drained(
    sampler: str,
    model: Path | Checkpoint,
    earlier: Reconstruction | None = None,
    samples: int = 6,
    steps: int = 3,
    **choices: object,
) -> Reconstruction:
    """A reconstruction of six samples, the first alone, then four, then one."""
    rng = np.random.default_rng(3)
    image = ImageStack(array=1 + 0.05 * rng.standard_normal((2, 37, 50)), axes="PYX", pixel_um=0.2)
    optics = {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}
    loaded = model if isinstance(model, Checkpoint) else load_model(str(model))
    request = ReconstructionRequest(
        image=image,
        model=loaded.card.name,
        samples=samples,
        steps=steps,
        keep_samples=True,
        sampler=sampler,
        **optics,
        **choices,
    )
    return finish(request, loaded, earlier)


@pytest.mark.parametrize(("prediction", "expected"), [("v", 1 + 6 * 2), ("eps", 6 * 3)])
def test_what_every_sample_starts_from_is_evaluated_once(
    tiny_phase_model: Path, monkeypatch: pytest.MonkeyPatch, prediction: str, expected: int
) -> None:
    denoised: list[int] = []
    really = cvdm.CVDM.clean
    monkeypatch.setattr(
        cvdm.CVDM,
        "clean",
        lambda network, noisy, *given: (
            denoised.extend([1] * len(noisy)) or really(network, noisy, *given)
        ),
    )
    model = load_model(str(tiny_phase_model))
    monkeypatch.setattr(model.network, "prediction", PREDICTIONS[prediction])
    drained("sde-2m", model)
    assert len(denoised) == expected == frame.evaluations(model.network, samples=6, steps=3)


def test_a_start_of_its_own_moves_a_sample_far_less_than_samples_scatter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_model("widefield-x2")
    shared = finish(request_of_output(model, 128, 4, keep_samples=True), model)
    monkeypatch.setattr(frame.FrameSampler, "start", lambda self: None)
    alone = finish(request_of_output(model, 128, 4, keep_samples=True), model)
    assert shared.samples is not None and alone.samples is not None
    moved = np.sqrt(np.mean((shared.samples - alone.samples) ** 2, axis=(1, 2)))
    assert moved[0] == 0, "the first sample starts from its own"
    assert 0 < moved[1:].max() < 0.01 * np.sqrt(alone.variance.mean())


@pytest.mark.parametrize(
    ("samples", "steps", "prediction", "alike"),
    [(2, 1, "v", True), (1, 1, "v", False), (2, 2, "v", False), (2, 1, "eps", False)],
)
def test_samples_that_cannot_differ_are_named(
    tiny_phase_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    samples: int,
    steps: int,
    prediction: str,
    alike: bool,
) -> None:
    model = load_model(str(tiny_phase_model))
    monkeypatch.setattr(model.network, "prediction", PREDICTIONS[prediction])
    found = drained("sde-2m", model, samples=samples, steps=steps)
    assert (
        any("all 2 samples are alike" in warning for warning in found.provenance.warnings) == alike
    )
    assert (samples > 1 and found.variance.max() == 0) == alike


class Waits(TorchDispatchMode):
    """Count reads of numbers and sizes from a tensor: there a processor waits for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampler", ["sde-2m", "ode-2m", "ddim", "ancestral"])
def test_no_step_waits_for_the_device(tiny_phase_model: Path, sampler: str) -> None:
    found = []
    for steps in (2, 7):
        with Waits() as waits:
            drained(sampler, load_model(str(tiny_phase_model)), steps=steps)
        found.append(waits.count)
    assert found[0] == found[1] > 0


@given(first=st.integers(0, 20), samples=st.integers(1, 40), together=st.integers(1, 8))
def test_groups_hold_every_sample_once_and_in_order(
    first: int, samples: int, together: int
) -> None:
    groups = list(frame.sample_groups(first, samples, together))
    assert [sample for group in groups for sample in group] == list(range(first, samples))
    assert all(1 <= len(group) <= together for group in groups)


def test_the_overhead_is_measured_on_a_small_image(tiny_widefield_model: Path) -> None:
    assert (
        overhead(load_model(str(tiny_widefield_model)), size=64, samples=3, rounds=1, steps=2) > -1
    )


@pytest.mark.stress
def test_every_part_in_its_small_form_has_finite_rows() -> None:
    rows = small_tables()
    assert len(rows) >= len(PARTS)
    for row in rows:
        assert all(
            math.isfinite(float(number))
            for number in re.findall(r"nan|inf|\d[\d.]*(?:e[+-]\d+)?", row.value)
        ), row


def test_two_commits_are_compared_and_leave_no_working_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trees = ["git", "worktree", "list"]
    listed = subprocess.run(trees, capture_output=True, text=True, cwd=REPOSITORY)
    if listed.returncode:
        pytest.skip("this is no git repository")
    monkeypatch.setattr(speed, "COMPARED", {"help": ("--help",)})
    (row,) = speed.compare_commits(("HEAD", "HEAD"), rounds=1)
    assert float(row.value.split()[0]) > 0
    after = subprocess.run(trees, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert after.stdout == listed.stdout


def test_the_paths_that_are_compared_give_the_same_pixels_and_a_fault_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    assert all(row.met for row in speed_rows(model))
    really = cvdm.noise_field
    monkeypatch.setattr(
        cvdm,
        "noise_field",
        lambda *given, **named: really(*given, **named) + (frame.SAMPLES_TOGETHER > 1),
    )
    assert [row.met for row in speed_rows(model)] == [False, False, False]


def test_a_network_that_is_where_it_is_needed_is_not_copied(tiny_phase_model: Path) -> None:
    here, network = torch.device("cpu"), load_model(str(tiny_phase_model)).network
    assert network_on(network, here) is network
    plain = deepcopy(network).to(memory_format=torch.contiguous_format)
    copied = network_on(plain, here)
    assert copied is not plain
    assert network_on(copied, here) is copied
    assert all(
        torch.equal(one, other)
        for one, other in zip(plain.parameters(), copied.parameters(), strict=True)
    )


def test_the_smallest_number_within_a_tolerance_is_found() -> None:
    def quality(evaluations: int, crps: float) -> Quality:
        return Quality(
            model="m",
            method="sde-2m",
            evaluations=evaluations,
            crps=crps,
            rmse=1.0,
            spread_ratio=1.0,
        )

    rows = [quality(10, 1.0), quality(6, 1.02), quality(8, 1.01), quality(4, 1.03)]
    found = smallest_within(rows, 1.0)
    assert found is not None and found.evaluations == 6
    assert smallest_within(rows, 0.5) is None


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.csv"
    rows = [
        Quality(model="m", method=method, evaluations=4, crps=0.1, rmse=1 / 3, spread_ratio=0.9)
        for method in METHODS
    ]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows


@pytest.mark.parametrize("method", METHODS)
def test_every_method_spends_the_evaluations_it_says(
    tiny_widefield_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    network, calls = load_model(str(tiny_widefield_model)).network, []
    really = network.clean
    monkeypatch.setattr(network, "clean", lambda *given: calls.append(1) or really(*given))
    channels, baseline = (
        torch.randn(1, network.config.condition_channels, 16, 16),
        torch.zeros(1, 1, 32, 32),
    )
    drawn = posterior(network, channels, baseline, method, evaluations=4, samples=2)
    assert len(calls) == (4 * 2 if method in (WARM, ALONE) else 1 + 3 * 2)
    assert drawn.shape == (2, 1, 32, 32) and bool(drawn.isfinite().all())
