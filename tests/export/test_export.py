"""A model for other programs, as far as only napari-cvdm is needed.

The networks of a package give what napari-cvdm gives.
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint
from packaged_models import PHASE, WIDEFIELD, measured, reconstructed

from napari_cvdm.cli import main
from napari_cvdm.cli.options import build_parser
from napari_cvdm.core.intensity import noise_sigma
from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import RequestError
from napari_cvdm.export.readme import one_step_readme, sampler_readme
from napari_cvdm.export.sampler import (
    OneStep,
    OneStepFromCounts,
    PackageSettings,
    PosteriorSampler,
    noise_deviation,
    percentile,
)
from napari_cvdm.export.zoo import ExportError, example_planes, write_bioimageio
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.models.tiled import TiledModel
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.tasks import TASKS, Denoise

pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


def sampler_of(model: Path, settings: PackageSettings) -> PosteriorSampler:
    checkpoint = load_checkpoint(model)
    sampler = PosteriorSampler(asdict(checkpoint.card), settings.given())
    sampler.load_state_dict(checkpoint.network.state_dict())
    return sampler.eval()


@pytest.fixture(params=["phase", "widefield"])
def case(
    request: pytest.FixtureRequest, tiny_phase_model: Path, tiny_widefield_model: Path
) -> tuple[Path, PackageSettings, int]:
    return (
        (tiny_phase_model, PHASE, 2)
        if request.param == "phase"
        else (tiny_widefield_model, WIDEFIELD, 1)
    )


def test_the_sampler_gives_what_restore_gives(case: tuple[Path, PackageSettings, int]) -> None:
    model, settings, planes = case
    image = measured(planes)
    expected = reconstructed(model, image, settings)
    mean, std = sampler_of(model, settings)(torch.from_numpy(image)[None])
    np.testing.assert_array_equal(mean[0, 0], expected.mean)
    np.testing.assert_array_equal(std[0, 0], expected.std)
    assert expected.std.max() > 0


def test_an_image_gives_the_same_in_any_batch_and_another_with_another_seed(
    case: tuple[Path, PackageSettings, int],
) -> None:
    model, settings, planes = case
    images = torch.from_numpy(np.stack([measured(planes, seed=seed) for seed in (1, 2)]))
    together = sampler_of(model, settings)(images)[0]
    alone = sampler_of(model, settings)(images[1:])[0]
    other = sampler_of(model, replace(settings, seed=8))(images[1:])[0]
    assert torch.equal(together[1:], alone)
    assert not torch.equal(alone, other)


@pytest.mark.parametrize(
    "counts",
    [
        measured(1),
        measured(1, (4, 7)),
        np.full((1, 8, 8), 5, np.float32),
        np.random.default_rng(1).normal(size=(1, 30, 20)).astype(np.float32),
    ],
)
def test_the_scaling_for_onnx_is_that_of_the_task(counts: np.ndarray) -> None:
    image = torch.from_numpy(counts)[None]
    pixels = image.flatten(1).sort(dim=1).values
    for percent in (1.0, 50.0, 99.8):
        np.testing.assert_allclose(
            percentile(pixels, percent)[0], np.percentile(counts, percent), rtol=1e-5, atol=1e-5
        )
    np.testing.assert_allclose(
        noise_deviation(image)[0], noise_sigma(counts[0].astype(np.float64)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("blank", [False, True])
def test_one_step_from_counts_is_one_step_from_the_channels_of_the_task(
    tmp_path: Path, blank: bool
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint("denoise", tmp_path / "tiny"))
    counts = (
        np.random.default_rng(0).poisson(100, (1, 48, 64)).astype(np.float32)
        if blank
        else measured(1, (48, 64))
    )
    networks = [kind(checkpoint.card.config()).eval() for kind in (OneStep, OneStepFromCounts)]
    for network in networks:
        network.load_state_dict(checkpoint.network.state_dict())
    prepared = Denoise().condition(counts, "auto")
    with torch.inference_mode():
        expected = (
            networks[0](prepared.channels[None], prepared.initial_estimate[None, None])
            * prepared.gain
        )
        found = networks[1](torch.from_numpy(counts)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * prepared.gain)


def test_one_step_of_a_phase_takes_the_prepared_channels_as_the_readme_says(
    tiny_phase_model: Path,
) -> None:
    """Channels cover the frame and a little around it; what is kept is the frame."""
    checkpoint, planes = load_checkpoint(tiny_phase_model), measured(2)
    request = PHASE.request(planes, str(tiny_phase_model))
    prepared = prepare_frame(planes, request, TASKS["phase-2shot"])
    network = OneStep(checkpoint.card.config()).eval()
    network.load_state_dict(checkpoint.network.state_dict())
    tiled = TiledModel(network, prepared.valid.shape, 0)
    condition = tiled.padded_condition(prepared.channels[None])
    with torch.inference_mode():
        mean = network(
            condition, tiled.padded_target(prepared.initial_estimate[None, None])
        ).numpy()
    mean = mean[:, :, : prepared.valid.shape[0], : prepared.valid.shape[1]]
    phase = prepared.kept(prepared.posterior.blend(mean[0, 0] * prepared.gain))
    assert prepared.channels.shape[0] == len(checkpoint.card.channels) == 13
    assert phase.shape == planes.shape[1:]
    assert np.isfinite(phase).all()
    assert "prepared.posterior.blend(" in one_step_readme(checkpoint.card, from_counts=False)


def test_settings_come_back_from_plain_values_and_wrong_ones_are_refused() -> None:
    assert (
        PackageSettings.of({**PHASE.given(), "defocus_um": [-2.5, 2.5], "command": "export"})
        == PHASE
    )
    with pytest.raises(RequestError, match="samples is 0"):
        PackageSettings(samples=0)
    with pytest.raises(OpticsError, match="pixel_um is 65"):
        PackageSettings(pixel_um=65)
    with pytest.raises(OpticsError, match=r"condenser_na is 1\.4; allowed is 0 to 1\.337"):
        replace(PHASE, condenser_na=1.4)


def test_three_planes_and_the_condenser_reach_the_package(tiny_phase_model: Path) -> None:
    words = [
        "--pixel-um",
        "0.2",
        "--wavelength-um",
        "0.55",
        "--medium-index",
        "1.337",
        "--samples",
        "2",
        "--steps",
        "1",
    ]
    words += ["--defocus-um", "-2.5", "0", "1.5", "--condenser-na", "0.3"]
    settings = PackageSettings.of(
        vars(
            build_parser().parse_args(
                ["export", "phase-2shot", "--out", "out", "--format", "bioimageio", *words]
            )
        )
    )
    assert (settings.defocus_um, settings.condenser_na) == ((-2.5, 0.0, 1.5), 0.3)
    sampler = sampler_of(tiny_phase_model, settings)
    assert (
        sampler.settings
        == PackageSettings.of({**settings.given(), "defocus_um": [-2.5, 0, 1.5]})
        == settings
    )
    image = measured(3)
    np.testing.assert_array_equal(
        sampler(torch.from_numpy(image)[None])[0][0, 0],
        reconstructed(tiny_phase_model, image, settings).mean,
    )
    with pytest.raises(
        RequestError, match="the image has 2 planes, but defocus_um has 3 positions"
    ):
        sampler.reconstructed(measured(2))
    readme = sampler_readme(sampler.card, settings, ())
    assert "Give 3 planes" in readme and "condenser_na: 0.3" in readme


def test_the_example_is_imaged_with_the_condenser_of_the_package() -> None:
    closed, wide = (
        example_planes(
            replace(PHASE, defocus_um=(-5.0, 0.0, 5.0), condenser_na=na).request(
                np.zeros((1, 1, 1)), ""
            ),
            2,
        )
        for na in (None, 0.5)
    )
    assert closed.shape == wide.shape == (3, 96, 128)
    contrast = [planes.std(axis=(1, 2)) for planes in (closed, wide)]
    assert (contrast[1][[0, 2]] < 0.9 * contrast[0][[0, 2]]).all()
    assert contrast[1][1] == pytest.approx(
        contrast[0][1], rel=0.01
    )  # in focus, light from all angles meets


def test_the_example_has_the_optics_that_the_package_fixes() -> None:
    near, far = (
        example_planes(replace(PHASE, defocus_um=(-z, z)).request(np.zeros((2, 1, 1)), ""), 2)
        for z in (0.5, 5.0)
    )
    assert near.shape == far.shape and near.dtype == np.float32
    assert far.std() > 1.5 * near.std()


def test_without_the_extra_one_line_says_what_to_install(
    tiny_widefield_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.core", None)
    with pytest.raises(ExportError, match=r'pip install "napari-cvdm\[bmz\]"'):
        write_bioimageio(tiny_widefield_model, tmp_path / "out", WIDEFIELD)
    assert (
        main(
            [
                "export",
                str(tiny_widefield_model),
                "--out",
                str(tmp_path / "out"),
                "--format",
                "bioimageio",
            ]
        )
        == 2
    )
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_bundle_fixes_nothing(
    tiny_widefield_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "export",
                str(tiny_widefield_model),
                "--out",
                str(tmp_path / "x.zip"),
                "--pixel-um",
                "0.1",
            ]
        )
        == 2
    )
    assert "--pixel-um" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()
