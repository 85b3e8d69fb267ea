"""Pixels that were never measured have no weight, and count in no estimate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.core.intensity import fill_unmeasured, measured_pixels
from napari_cvdm.core.request import ReconstructionRequest, RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import ImageFileError
from napari_cvdm.models.registry import load_model
from napari_cvdm.physics.widefield import WidefieldForwardModel
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.tasks import Denoise, PhaseTwoShot
from napari_cvdm.tasks.deconvolved import deconvolve

pytestmark = pytest.mark.usefixtures("remembered_inversions")


def camera(shape: tuple[int, int] = (64, 72), level: float = 100.0) -> np.ndarray:
    """Counts of a camera with an offset."""
    y, x = np.indices(shape)
    light = level + 400 * np.exp(-((y - 50) ** 2 + (x - 30) ** 2) / 60)
    return np.random.default_rng(0).poisson(light).astype(np.uint16)


def test_a_block_of_zeros_was_not_measured_and_a_dark_field_was() -> None:
    counts = camera()
    assert measured_pixels(counts).all()
    counts[:10], counts[30:50, 40:60] = 0, 0
    found = measured_pixels(counts)
    assert not found[:10].any() and not found[30:50, 40:60].any()
    assert found[20:28].all() and found.mean() > 0.65
    photons = np.random.default_rng(0).poisson(0.05, (64, 72)).astype(np.uint16)
    photons[20:40, 20:40] += 30
    assert measured_pixels(photons).all()
    y, x = np.indices((256, 256))
    discs = sum((y - a) ** 2 + (x - b) ** 2 < 900 for a, b in ((80, 80), (180, 150), (90, 200)))
    light = ndimage.gaussian_filter(2000.0 * discs, 0.7) + 100
    clipped = np.random.default_rng(0).poisson(light).clip(150) - 150
    assert measured_pixels(clipped.astype(np.uint16)).all()
    assert measured_pixels(np.zeros((20, 20))).all()


def test_the_corners_of_a_turned_image_were_not_measured() -> None:
    turned = ndimage.rotate(camera((96, 96)).astype(float), 12, order=1, cval=0.0)
    found = measured_pixels(turned)
    assert not found[0, 0] and not found[-1, -1] and found[40:70, 40:70].all()
    assert (turned[found] > 40).all() and found.mean() > 0.5


def test_a_part_without_a_measured_pixel_is_nothing() -> None:
    found = Denoise().condition(np.full((1, 32, 32), np.nan), "none")
    assert torch.isfinite(found.channels).all() and not found.valid.any()


def test_what_is_not_finite_was_not_measured() -> None:
    image = camera().astype(float)
    image[3, 4], image[5, 6] = np.nan, np.inf
    assert np.argwhere(~measured_pixels(image)).tolist() == [[3, 4], [5, 6]]
    filled = fill_unmeasured(np.where(measured_pixels(image), image, np.nan))
    assert np.isfinite(filled).all() and (filled == image).sum() == image.size - 2


@pytest.mark.parametrize("border", [np.nan, 0.0])
def test_an_empty_border_changes_no_estimate_of_fluorescence(border: float) -> None:
    counts = camera((96, 96)).astype(float)
    cut = counts.copy()
    cut[:24] = border
    found = Denoise().condition(cut[None], "auto")
    inner = Denoise().condition(counts[None, 26:], "auto")
    for name in ("dark_level", "intensity_scale", "noise_sigma"):
        assert found.estimated[name] == pytest.approx(inner.estimated[name], rel=0.02)
    assert not found.valid[:24].any() and found.valid[40:88, 8:88].all()
    assert torch.isfinite(found.channels).all()
    assert found.estimated["unmeasured_share"] == pytest.approx(0.25, abs=0.03)


def test_the_deconvolution_does_not_see_what_has_no_weight() -> None:
    rng = np.random.default_rng(0)
    psf = torch.zeros(9, 9)
    psf[3:6, 3:6] = 1 / 9
    model = WidefieldForwardModel.on_canvas(psf, (40, 40), 8, 1)
    counts = torch.from_numpy(rng.poisson(50.0, (40, 40))).float()
    weight = torch.ones_like(counts)
    weight[10:20, 10:20] = 0
    planted = torch.where(weight > 0, counts, torch.full_like(counts, 1e4))
    for _, first, second in zip(
        range(5),
        deconvolve(counts, model, 1.0, weight),
        deconvolve(planted, model, 1.0, weight),
        strict=False,
    ):
        torch.testing.assert_close(first, second)
    for _, plain, ones in zip(
        range(5),
        deconvolve(counts, model, 1.0),
        deconvolve(counts, model, 1.0, torch.ones_like(counts)),
        strict=False,
    ):
        assert torch.equal(plain, ones)


def test_planes_with_an_empty_border_keep_their_background() -> None:
    image = planes((64, 64))
    cut = image.array.astype(float)
    cut[1, :12] = np.nan
    whole, found = (
        prepare_frame(frame, phase_request(image), PhaseTwoShot()) for frame in (image.array, cut)
    )
    np.testing.assert_allclose(
        found.estimated["background"], whole.estimated["background"], rtol=0.02
    )
    rows = found.frame[0]
    assert not found.valid[rows][:12].any() and found.valid[rows][20:].any()
    assert np.isfinite(found.estimate).all()


def run(request: ReconstructionRequest, model: object) -> Reconstruction:
    return drained(reconstruct(request, load_model(str(model))))


def test_one_bad_frame_is_named_and_costs_no_other(tiny_widefield_model) -> None:
    movie = spots((3, 40, 36), axes="TYX")
    good = run(widefield_request(movie), tiny_widefield_model)
    broken = movie.array.copy()
    broken[1] = 0
    found = run(widefield_request(replace(movie, array=broken)), tiny_widefield_model)
    np.testing.assert_array_equal(found.mean[[0, 2]], good.mean[[0, 2]])
    assert found.counts.tolist() == [good.counts[0], 0, good.counts[2]]
    assert not found.valid[1].any() and found.valid[0].any()
    (said,) = [text for text in found.provenance.warnings if "skipped" in text]
    assert "frame T 1" in said and "constant" in said
    assert not any(text.startswith("stopped") for text in found.provenance.warnings)
    assert "skipped" in found.provenance.estimated["frames"][1]


def test_where_every_frame_is_bad_the_first_fault_is_told(tiny_widefield_model) -> None:
    movie = spots((2, 40, 36), axes="TYX")
    blank = replace(movie, array=np.zeros_like(movie.array))
    with pytest.raises((ImageFileError, RequestError), match="frame T 0"):
        run(widefield_request(blank), tiny_widefield_model)
