"""Each classical method solves its own case; its result has the shape of a model's."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.baselines import BASELINES
from napari_cvdm.cli import main
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, MeasuredPsf, RequestError
from napari_cvdm.core.result import Reconstruction, Stop
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import write_image
from napari_cvdm.io.folders import NOTES
from napari_cvdm.io.result_folder import read_result_folder
from napari_cvdm.models.checkpoint import CheckpointError
from napari_cvdm.physics.camera import photon_transfer
from napari_cvdm.physics.widefield import bin_pixels, blur, optical_transfer, widefield_psf
from napari_cvdm.reconstruction.command import command_of
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.samples import WIDEFIELD_RANGES
from napari_cvdm.simulate.scenes import simulate_widefield

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
PHASE_METHODS = ("us-tie", "wotf", "phase-physics")
FILES = {
    "mean.ome.tif",
    "std.ome.tif",
    "variance.ome.tif",
    "rate.ome.tif",
    "valid.ome.tif",
    "provenance.json",
    NOTES,
}


def run(request) -> Reconstruction:
    return drained(reconstruct(request, load_method(request.model)))


def test_a_parameter_after_a_colon_is_used_and_written_down() -> None:
    image = planes((48, 48))
    strong = run(phase_request(image, model="us-tie:1e-2"))
    assert strong.provenance.model["parameters"] == {"regularisation": 1e-2, "iterations": 25}
    assert (
        strong.provenance.model["sha256"]
        != run(phase_request(image, model="us-tie")).provenance.model["sha256"]
    )
    assert strong.mean.std() < run(phase_request(image, model="us-tie")).mean.std()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("us-tie:much", "no regularisation"),
        ("wotf:0", "above 0"),
        ("wotf:nan", "above 0"),
        ("us-tie:-1", "above 0"),
        ("phase-physics:1", "2 to 64"),
        ("phase-physics:x", "no draws"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_refused(name, words) -> None:
    with pytest.raises(RequestError, match=words):
        load_method(name)


def test_an_unknown_name_is_told_the_baselines_too() -> None:
    with pytest.raises(CheckpointError, match=r"phase-2shot.*us-tie, wotf, richardson-lucy"):
        load_method("us-tye")


def test_no_samples_can_be_added_to_a_single_answer() -> None:
    request = phase_request(planes((48, 48)), model="us-tie")
    with pytest.raises(RequestError, match="single answer"):
        drained(reconstruct(replace(request, samples=4), load_method("us-tie"), run(request)))


FLUORESCENCE = {"pixel_um": 0.065, "wavelength_um": 0.52, "medium_index": 1.518, "na": 1.4}


def widefield_image(emitters: np.ndarray, background: float = 100.0, seed: int = 0) -> np.ndarray:
    """A noisy camera image (Y, X) of emitters on the grid twice as fine."""
    psf = widefield_psf(
        Microscope(**{**FLUORESCENCE, "pixel_um": FLUORESCENCE["pixel_um"] / 2}), 61
    )
    seen = bin_pixels(
        blur(torch.from_numpy(emitters).float(), optical_transfer(psf, emitters.shape)).clamp(
            min=0
        ),
        2,
    ).numpy()
    return np.random.default_rng(seed).poisson(seen + background).astype(np.uint16)


def lines() -> np.ndarray:
    """Two bright lines 9 fine pixels (0.29 um) apart, where the camera image hardly shows a gap."""
    emitters = np.zeros((96, 112))
    emitters[20:76, [50, 59]] = 600
    return emitters


def deconvolved(counts: np.ndarray, name: str = "richardson-lucy", **changes) -> Reconstruction:
    return run(
        widefield_request(
            ImageStack(array=counts, axes="YX"), model=name, **{**FLUORESCENCE, **changes}
        )
    )


def dip(profile: np.ndarray, left: int, right: int) -> float:
    """Depth of the valley between two peaks, as a share of the lower one."""
    peaks = min(profile[left - 1 : left + 2].max(), profile[right - 1 : right + 2].max())
    return float(1 - profile[left : right + 1].min() / peaks)


def test_richardson_lucy_keeps_the_flux_and_resolves_what_was_blurred() -> None:
    counts = widefield_image(lines())
    result = deconvolved(counts)
    measured = np.kron(
        counts - result.provenance.estimated["frames"][0]["dark_level"], np.ones((2, 2))
    )
    assert result.mean.shape == (96, 112)
    assert result.pixel_um == pytest.approx(0.0325)
    assert result.mean.sum() == pytest.approx(measured.sum(), rel=0.01)
    before, after = (dip(image[30:66].mean(axis=0), 50, 59) for image in (measured, result.mean))
    assert after > before + 0.2


def test_richardson_lucy_stays_where_the_image_is() -> None:
    emitters = np.zeros((80, 80))
    emitters[30, 50] = 1e5
    result = deconvolved(widefield_image(emitters), "richardson-lucy:12")
    around = result.mean[24:37, 44:57] - np.median(result.mean)
    place = [float((around * index).sum() / around.sum()) for index in np.indices(around.shape)]
    np.testing.assert_allclose(place, (6, 6), atol=0.05)


def test_it_stops_where_only_noise_is_left_and_says_so() -> None:
    found = deconvolved(widefield_image(lines())).provenance.estimated["frames"][0]
    assert 0.8 < found["chi_squared"] <= 1.05
    assert 1 < found["iterations"] <= 100
    limited = deconvolved(widefield_image(lines()), "richardson-lucy:2").provenance
    assert limited.estimated["frames"][0]["iterations"] == 2
    assert limited.model["parameters"] == {"iterations": 2}


@pytest.mark.parametrize("background", ["auto", "none", "dark image"])
def test_a_blank_field_stays_blank(background) -> None:
    counts = widefield_image(np.zeros((128, 128)), background=200)
    given = np.full(counts.shape, 200.0) if background == "dark image" else background
    result = deconvolved(counts, background=given)
    inside = result.mean[result.valid]
    level = {"auto": 200 - np.percentile(counts, 1), "none": 200, "dark image": 0}[background]
    assert inside.mean() == pytest.approx(level, abs=1.5)
    assert inside.std() < 0.5 * counts.std()


def test_doubling_the_counts_doubles_the_answer() -> None:
    counts = widefield_image(lines()).astype(np.float64)
    once, twice = (deconvolved(factor * counts, "richardson-lucy:8") for factor in (1, 2))
    np.testing.assert_allclose(twice.mean, 2 * once.mean, rtol=1e-3, atol=1e-2)


def test_photon_transfer_tells_gain_and_read_noise() -> None:
    level = np.tile(np.linspace(0, 500, 256), (256, 1))
    rng = np.random.default_rng(0)
    counts = 2.0 * (rng.poisson(level) + rng.normal(0, 3, level.shape))
    found = photon_transfer(counts, np.ones(counts.shape, bool))
    assert found.gain == pytest.approx(2.0, rel=0.05)
    assert found.read_variance == pytest.approx(36, rel=0.3)


def test_optics_are_estimated_where_they_are_not_stated_and_it_says_so() -> None:
    pair = simulate_widefield(1, replace(WIDEFIELD_RANGES, field_px=128, structures=("reticulum",)))
    found = {}
    for source, changes in (("stated", {}), ("estimated", {"na": None, "wavelength_um": None})):
        found[source] = deconvolved(pair.counts, pixel_um=0.0626, **changes).provenance.estimated[
            "frames"
        ][0]
        assert found[source]["optics"] == source
    assert found["estimated"]["cutoff_px"] == pytest.approx(found["stated"]["cutoff_px"], rel=0.2)


def test_a_measured_psf_decides_over_the_stated_optics() -> None:
    microscope = Microscope(**{**FLUORESCENCE, "pixel_um": 0.04})
    bead = 5000 * np.roll(widefield_psf(microscope, 61).numpy(), (5, -7), (0, 1)) + 100
    measured = MeasuredPsf(array=bead, pixel_um=0.04)
    counts = widefield_image(lines())
    stated, by_psf = deconvolved(counts), deconvolved(counts, psf=measured, na=0.7)
    assert by_psf.provenance.estimated["frames"][0]["optics"] == "measured"
    assert np.abs(by_psf.mean - stated.mean).max() < 0.1 * np.ptp(stated.mean)


@pytest.mark.parametrize(
    "counts",
    [np.full((40, 40), 7.0), np.zeros((24, 40), np.uint16), np.full((40, 40), 65535, np.uint16)],
)
def test_an_image_without_noise_is_left_as_it_is(counts) -> None:
    result = deconvolved(counts, background="none")
    np.testing.assert_allclose(result.mean, np.kron(counts, np.ones((2, 2))), rtol=1e-3, atol=1e-9)


PHASE_WORDS = ["--wavelength-um", "0.55", "--medium-index", "1.33", "--defocus-um", "-1", "1"]
FLUORESCENCE_WORDS = ["--wavelength-um", "0.52", "--medium-index", "1.518", "--na", "1.4"]


def written(folder: Path, name: str) -> tuple[Path, list[str], Reconstruction]:
    """An image file for a method, its optics in words, and what the method makes of it."""
    phase = BASELINES[name].task == "phase-2shot"
    image = planes((48, 40)) if phase else spots((40, 36))
    path = folder / "image.ome.tif"
    write_image(
        path, image.array, axes=image.axes, pixel_um=image.pixel_um, unit="counts", name="image"
    )
    return (
        path,
        PHASE_WORDS if phase else FLUORESCENCE_WORDS,
        run(phase_request(image, model=name)) if phase else deconvolved(image.array),
    )


@pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")
@pytest.mark.parametrize("name", BASELINES)
def test_the_command_line_leaves_the_contracted_files(
    name, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path, optics, expected), out = written(tmp_path, name), tmp_path / "out"
    assert main(["restore", str(path), "--model", name, "--out", str(out), *optics]) == 0
    assert {entry.name for entry in out.iterdir()} == FILES
    np.testing.assert_allclose(
        tifffile.imread(out / "mean.ome.tif"), expected.mean, rtol=1e-4, atol=1e-4
    )
    has_spread = name == "phase-physics"
    assert tifffile.imread(out / "variance.ome.tif").any() == has_spread
    record = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert (record["model"]["name"], record["model"]["kind"]) == (name, "baseline")
    assert record["model"]["parameters"] == asdict(BASELINES[name])
    assert ("a single answer: it has no spread" not in capsys.readouterr().err) == has_spread
    again = read_result_folder(out).reconstruction
    assert again.mean.shape == expected.mean.shape
    assert again.upsampling == expected.upsampling


def test_an_opened_result_of_a_baseline_tells_its_command(tmp_path: Path) -> None:
    path, optics, _ = written(tmp_path, "us-tie")
    assert (
        main(
            [
                "restore",
                str(path),
                "--model",
                "us-tie:1e-5",
                "--out",
                str(tmp_path / "out"),
                *optics,
            ]
        )
        == 0
    )
    stored = read_result_folder(tmp_path / "out")
    command = drained(command_of(asdict(stored.reconstruction.provenance), stored.files))
    assert "--model us-tie:1e-5" in command


def test_models_lists_the_baselines_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    models, baselines = capsys.readouterr().out.split("\nbaselines: ")
    assert all(f"{name}: " in baselines and f"{name}: " not in models for name in BASELINES)


def test_an_unknown_model_is_one_line_that_names_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, optics, _ = written(tmp_path, "us-tie")
    assert (
        main(["restore", str(path), "--model", "us-ty", "--out", str(tmp_path / "out"), *optics])
        == 2
    )
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(name in said for name in BASELINES)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("few_solver_steps")
@pytest.mark.parametrize("shape", [(1, 40), (2, 2), (3, 5), (17, 18)])
def test_small_images_are_solved_too(shape) -> None:
    rng = np.random.default_rng(0)
    result = deconvolved(rng.poisson(100, shape).astype(np.uint16), "richardson-lucy:4")
    assert result.mean.shape == (2 * shape[0], 2 * shape[1])
    assert np.isfinite(result.mean).all()
    assert not result.valid.any() or min(shape) > 16
    for name in PHASE_METHODS:
        pair = ImageStack(
            array=rng.poisson(1000, (2, *shape)).astype(np.uint16), axes="PYX", pixel_um=0.2
        )
        assert np.isfinite(run(phase_request(pair, model=name)).mean).all()


@pytest.mark.parametrize("name", PHASE_METHODS)
def test_planes_without_light_are_refused_as_by_the_models(name) -> None:
    dark = ImageStack(array=np.zeros((2, 32, 32), np.uint16), axes="PYX", pixel_um=0.2)
    with pytest.raises(RequestError, match="background intensity is not positive"):
        run(phase_request(dark, model=name))


def test_a_baseline_wants_as_many_planes_as_its_task() -> None:
    with pytest.raises(RequestError, match="needs 2"):
        run(
            phase_request(
                ImageStack(array=np.ones((32, 32)), axes="YX", pixel_um=0.2), model="us-tie"
            )
        )


def test_a_run_that_is_stopped_and_kept_has_the_frames_that_are_finished() -> None:
    both = ImageStack(array=np.stack([planes((48, 48)).array] * 3), axes="TPYX", pixel_um=0.2)
    steps = reconstruct(phase_request(both, model="us-tie"), load_method("us-tie"))
    while "frame 2" not in next(steps).stage:
        pass
    with pytest.raises(StopIteration) as end:
        steps.send(Stop.KEEP)
    kept = end.value.value
    assert kept.counts.tolist() == [1, 0, 0]
    assert kept.valid[0].any()
    assert not kept.mean[1:].any() and not kept.valid[1:].any()
