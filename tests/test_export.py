"""A model for other programs, as far as nothing but napari-cvdm is needed: the networks of a package give what napari-cvdm gives."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from packaged_models import PHASE, WIDEFIELD, measured, restored

from napari_cvdm.cli import main
from napari_cvdm.export.errors import ExportError
from napari_cvdm.export.example import example_planes
from napari_cvdm.export.one_step import OneStep, OneStepFromCounts, noise_deviation, percentile
from napari_cvdm.export.sampler import PosteriorSampler
from napari_cvdm.export.settings import PackageSettings
from napari_cvdm.export.zoo import write_bioimageio
from napari_cvdm.intensity import noise_sigma
from napari_cvdm.microscope import OpticsError
from napari_cvdm.model.checkpoint import load_checkpoint
from napari_cvdm.request import RequestError
from napari_cvdm.tasks import WidefieldX2


def sampler_of(model: Path, settings: PackageSettings) -> PosteriorSampler:
    checkpoint = load_checkpoint(model)
    sampler = PosteriorSampler(asdict(checkpoint.card), settings.given())
    sampler.load_state_dict(checkpoint.network.state_dict())
    return sampler.eval()


@pytest.fixture(params=["phase", "widefield"])
def case(request: pytest.FixtureRequest, tiny_phase_model: Path, tiny_widefield_model: Path) -> tuple[Path, PackageSettings, int]:
    return (tiny_phase_model, PHASE, 2) if request.param == "phase" else (tiny_widefield_model, WIDEFIELD, 1)


def test_the_sampler_gives_what_restore_gives(case: tuple[Path, PackageSettings, int]) -> None:
    model, settings, planes = case
    image = measured(planes)
    expected = restored(model, image, settings)
    mean, std = sampler_of(model, settings)(torch.from_numpy(image)[None])
    np.testing.assert_array_equal(mean[0, 0], expected.mean)
    np.testing.assert_array_equal(std[0, 0], expected.std)
    assert expected.std.max() > 0


def test_an_image_gives_the_same_in_any_batch_and_another_with_another_seed(case: tuple[Path, PackageSettings, int]) -> None:
    model, settings, planes = case
    images = torch.from_numpy(np.stack([measured(planes, seed=seed) for seed in (1, 2)]))
    together = sampler_of(model, settings)(images)[0]
    alone = sampler_of(model, settings)(images[1:])[0]
    other = sampler_of(model, replace(settings, seed=8))(images[1:])[0]
    assert torch.equal(together[1:], alone)
    assert not torch.equal(alone, other)


@pytest.mark.parametrize(
    "counts", [measured(1), measured(1, (4, 7)), np.full((1, 8, 8), 5, np.float32), np.random.default_rng(1).normal(size=(1, 30, 20)).astype(np.float32)]
)
def test_the_scaling_for_onnx_is_that_of_the_task(counts: np.ndarray) -> None:
    image = torch.from_numpy(counts)[None]
    pixels = image.flatten(1).sort(dim=1).values
    for percent in (1.0, 50.0, 99.8):
        np.testing.assert_allclose(percentile(pixels, percent)[0], np.percentile(counts, percent), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(noise_deviation(image)[0], noise_sigma(counts[0].astype(np.float64)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("blank", [False, True])
def test_one_step_from_counts_is_one_step_from_the_channels_of_the_task(tiny_widefield_model: Path, blank: bool) -> None:
    checkpoint = load_checkpoint(tiny_widefield_model)
    counts = np.random.default_rng(0).poisson(100, (1, 48, 64)).astype(np.float32) if blank else measured(1, (48, 64))
    networks = [kind(checkpoint.card.config()).eval() for kind in (OneStep, OneStepFromCounts)]
    for network in networks:
        network.load_state_dict(checkpoint.network.state_dict())
    prepared = WidefieldX2().condition(counts, "auto")
    with torch.inference_mode():
        expected = networks[0](prepared.channels[None], prepared.baseline[None, None]) * prepared.gain
        found = networks[1](torch.from_numpy(counts)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * prepared.gain)


def test_settings_come_back_from_plain_values_and_wrong_ones_are_refused() -> None:
    assert PackageSettings.of({**PHASE.given(), "defocus_um": [-2.5, 2.5], "command": "export"}) == PHASE
    with pytest.raises(RequestError, match="samples is 0"):
        PackageSettings(samples=0)
    with pytest.raises(OpticsError, match="pixel_um is 65"):
        PackageSettings(pixel_um=65)


def test_the_example_has_the_optics_that_the_package_fixes() -> None:
    near, far = (example_planes(replace(PHASE, defocus_um=(-z, z)).request(np.zeros((2, 1, 1)), ""), 2) for z in (0.5, 5.0))
    assert near.shape == far.shape and near.dtype == np.float32
    assert far.std() > 1.5 * near.std()


def test_without_the_extra_one_line_says_what_to_install(
    tiny_widefield_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.core", None)
    with pytest.raises(ExportError, match=r'pip install "napari-cvdm\[bmz\]"'):
        write_bioimageio(tiny_widefield_model, tmp_path / "out", WIDEFIELD)
    assert main(["export", str(tiny_widefield_model), "--out", str(tmp_path / "out"), "--format", "bioimageio"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_bundle_fixes_nothing(tiny_widefield_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tiny_widefield_model), "--out", str(tmp_path / "x.zip"), "--pixel-um", "0.1"]) == 2
    assert "--pixel-um" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()
