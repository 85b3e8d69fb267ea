"""A new task is one module and one registration: this module, for example.

The task: optical density of an absorbing object, from one brightfield image of it.
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.checks.check_model import SameGridCheckModel
from napari_cvdm.checks.forward_check import CHECK_MODELS
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError, TrainRequest
from napari_cvdm.core.result import finished
from napari_cvdm.evaluation.pair_sets import simulated_pairs
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.physics.camera import photon_transfer
from napari_cvdm.reconstruction.methods import register_task
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.ranges import RANGES
from napari_cvdm.tasks import ENTRY_POINTS, TASKS, NetworkInput
from napari_cvdm.training.card import INTENSITIES
from napari_cvdm.training.loop import train
from napari_cvdm.training.pool import TrainingField
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.sources import FIELDS

PHOTONS, PIXEL_UM = 500.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityRanges:
    """``[simulation]`` of the recipe."""

    task: ClassVar[str] = "density"
    density: tuple[float, float] = (0.2, 1.0)
    field_px: int = 32

    @property
    def smallest_px(self) -> int:
        return self.field_px


def simulate(
    ranges: DensityRanges, seed: int, size: int, draw: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Image formation: the counts that a camera sees behind an object, and its density."""
    rng = np.random.default_rng(seed)
    if draw is None:
        blobs = gaussian_filter(rng.standard_normal((size, size)), 3, mode="wrap").clip(min=0)
        density = rng.uniform(*ranges.density) * blobs / blobs.max()
    else:
        density = np.asarray(draw(rng, size, PIXEL_UM))
    return rng.poisson(PHOTONS * np.exp(-density)).astype(np.float32), density


@dataclass(frozen=True, slots=True)
class Density:
    """The task: Beer's law is inverted, and the network takes the noise away."""

    name: str = "density"
    title: str = "Optical density"
    inputs: str = "one brightfield image"
    planes: int = 1
    upsampling: int = 1
    channels: tuple[str, ...] = ("noisy density",)
    unit: str = "OD"
    needed_optics: tuple[str, ...] = ()
    context_px: int = 0

    def condition(self, counts: np.ndarray) -> NetworkInput:
        blank = float(np.percentile(counts, 95))
        density = torch.from_numpy(-np.log(counts.clip(min=1) / blank)).float()
        return NetworkInput(
            channels=density[None],
            initial_estimate=density,
            gain=1.0,
            valid=np.ones(counts.shape, bool),
            estimated={"blank": blank},
            counts=counts,
            noise=photon_transfer(counts, np.ones(counts.shape, bool)),
        )

    def prepare(self, frame: np.ndarray, plan: Plan) -> Generator[str, None, NetworkInput]:
        yield "optical density"
        return self.condition(frame[0])


def make_field(ranges: DensityRanges, seed: int, draw: Any) -> TrainingField:
    """One field to learn from."""
    counts, density = simulate(ranges, seed, ranges.field_px, draw)
    prepared = Density().condition(counts)
    return TrainingField(
        channels=prepared.channels,
        initial_estimate=prepared.initial_estimate,
        truth=torch.from_numpy(density).float(),
        weight=100.0,
    )


class DensityCheck(SameGridCheckModel):
    """The forward check: what a camera sees behind a reconstruction."""

    def compare(self, image: np.ndarray, fitted: Any = None) -> Any:
        return super().compare(np.exp(-image), fitted)


def check_model(prepared: NetworkInput, plan: Any, card: Any) -> DensityCheck:
    return DensityCheck(measured=prepared.counts, noise=prepared.noise, valid=prepared.valid)


RECIPE = """
name = "toy"
title = "A toy"
task = "density"
resolution = "none"
[network]
target = "residual"
denoiser = { widths = [8, 16], blocks = [1, 1], level_channels = 8 }
[simulation]
density = [0.5, 1.5]
field_px = 32
[plan]
mean_steps = 0
diffusion_steps = 20
batch = 2
patch_px = 16
pool_fields = 2
blank = 0.2
[validation]
fields = 1
every = 10
"""


def register() -> None:
    register_task(Density(), DensityRanges, make_field, intensity="counts", check_model=check_model)


@pytest.fixture
def tables() -> Iterator[None]:
    """What is registered during a test is forgotten after it."""
    with ExitStack() as stack:
        for table in (TASKS, RANGES, FIELDS, INTENSITIES, CHECK_MODELS):
            stack.enter_context(patch.dict(table))
        yield


@pytest.fixture
def unregistered(tmp_path: Path, tables: None) -> Path:
    """A recipe of the task, which nobody has registered."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def recipe(unregistered: Path) -> Path:
    """A recipe of the task, which is registered as long as the test runs."""
    register()
    return unregistered


def install(folder: Path, module: str) -> None:
    """Make a folder one where a package with a task is installed."""
    (folder / "density_package.py").write_text(module, encoding="utf-8")
    information = folder / "density_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: density-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ndensity = density_package\n")


def test_a_toy_task_is_simulated_trained_reconstructed_and_checked(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "toy"
    finished(train(TrainRequest(recipe=str(recipe), out=str(out), device="cpu")))
    model = load_checkpoint(out)
    assert model.card.task == "density" and model.card.unit == "OD"
    assert list(model.card.training["simulation"]["density"]) == [0.5, 1.5]
    counts, density = simulate(DensityRanges(), 7, 48)
    request = ReconstructionRequest(
        image=ImageStack(array=counts, axes="YX", pixel_um=PIXEL_UM),
        model="toy",
        samples=3,
        steps=4,
        device="cpu",
    )
    result = finished(reconstruct(request, model))
    assert np.corrcoef(result.mean.ravel(), density.ravel())[0, 1] > 0.9
    assert result.forward.chi2 is not None and np.isfinite(result.forward.chi2)
    shuffled = np.random.default_rng(0).permutation(result.mean.ravel()).reshape(result.mean.shape)
    check = check_model(Density().condition(counts), None, model.card)
    assert check.compare(shuffled).chi2(check.valid) > check.compare(result.mean).chi2(check.valid)


def test_two_tasks_of_one_name_are_refused(recipe: Path) -> None:
    with pytest.raises(RequestError, match="already"):
        register_task(Density(), DensityRanges, make_field, intensity="counts")


def test_a_task_that_is_not_registered_is_refused_in_words(unregistered: Path) -> None:
    with pytest.raises(RequestError, match="task is 'density'; allowed are"):
        read_recipe(unregistered)


def test_a_task_of_an_installed_package_is_found(
    unregistered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "density_package", raising=False)
    install(tmp_path, f"from {__name__} import register\n\nregister()\n")
    assert read_recipe(unregistered).task == "density"


def test_a_package_that_cannot_be_imported_is_named(
    unregistered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "density_package", raising=False)
    install(tmp_path, "import a_module_that_is_missing")
    with pytest.raises(RequestError, match="density_package cannot be imported"):
        read_recipe(unregistered)


def test_simulated_pairs_of_another_task_are_refused_in_words() -> None:
    with pytest.raises(RequestError, match="'density' has no simulated pairs"):
        simulated_pairs(1, 0, DensityRanges())
