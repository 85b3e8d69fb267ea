"""Phase block by block: US-TIE on two scales is the solution of the whole field, and blocks meet without seams."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from small_images import OPTICS, phase_request
from test_by_tiles import drained, image_in

from napari_cvdm.by_tiles import restore_by_tiles
from napari_cvdm.image_files import Fingerprint
from napari_cvdm.microscope import Microscope
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import ImageStack
from napari_cvdm.restore import restore
from napari_cvdm.simulate.phase import defocus_pair_of
from napari_cvdm.survey import BlockReader, survey_frame
from napari_cvdm.tasks import TASKS, PhaseTwoShot, phase_blocks
from napari_cvdm.tasks.tie_scales import coarse_step
from napari_cvdm.tiled_job import TiledRequest
from napari_cvdm.tiling.blocks import BlockPlan

SURROUNDINGS, BLOCK, COARSE = 64, 128, 200  # so that a field of 424 pixels has four windows along it and coarse pixels of three


def cells(shape: tuple[int, int], noise: float = 5.0) -> ImageStack:
    """Noisy planes of many round cells that keep clear of the edge."""
    rng, phase = np.random.default_rng(0), np.zeros(shape)
    for _ in range(50):
        radius = rng.uniform(6, 40)
        y, x = (rng.uniform(radius + 20, size - radius - 20) for size in shape)
        distance = np.hypot(*np.ogrid[-y : shape[0] - y - 0.5, -x : shape[1] - x - 0.5])
        phase += rng.uniform(0.3, 2) * np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, None))
    microscope = Microscope(**{name: OPTICS[name] for name in ("pixel_um", "wavelength_um", "medium_index")})
    pair = defocus_pair_of(gaussian_filter(phase, 2), 0 * phase, microscope, OPTICS["defocus_um"])
    return ImageStack(array=(1000 * pair + rng.normal(0, noise, pair.shape)).astype(np.float32), axes="PYX", pixel_um=0.2)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> PhaseTwoShot:
    """The task with small windows and small coarse images."""
    task = replace(PhaseTwoShot(), surroundings_px=SURROUNDINGS)
    monkeypatch.setitem(TASKS, task.name, task)
    monkeypatch.setattr(phase_blocks, "coarse_step", lambda shape: coarse_step(shape, COARSE))
    return task


def baseline_by_blocks(task: PhaseTwoShot, request, blocks) -> np.ndarray:
    """US-TIE [rad] of every block, put together."""
    shape = request.image.array.shape[-2:]
    plan = BlockPlan(loops=(), shape=shape, block=BLOCK, halo=SURROUNDINGS)
    reader, together = BlockReader(request=request, plan=plan, frame_number=0), np.zeros(shape)
    for block in plan.blocks():
        prepared = blocks.prepare(*reader.part(*block.window), (block.rows.read_start, block.columns.read_start))
        together[block.written(1)] = (prepared.baseline.numpy() * prepared.gain)[block.rows.inner(), block.columns.inner()]
    return together


@pytest.mark.parametrize("background", ["auto", "image"])
def test_two_scales_are_the_solution_of_the_whole_field(small_windows: PhaseTwoShot, background: str) -> None:
    image = cells((384, 424))
    flat = 1000 * (1 + 0.2 * np.linspace(-1, 1, 424)) * np.ones((384, 1))
    request = phase_request(image)
    if background == "image":
        request = phase_request(replace(image, array=image.array * flat / 1000), background=flat)
    whole = small_windows.from_request(request.image.array, request)
    plan = BlockPlan(loops=(), shape=(384, 424), block=BLOCK, halo=SURROUNDINGS)
    blocks = survey_frame(request, small_windows, plan, 0, Fingerprint(request.image.array))
    kept = small_windows.blocks(blocks.numbers())
    expected, strength = whole.baseline.numpy() * whole.gain, whole.estimated["strength_rad"]
    error = baseline_by_blocks(small_windows, request, kept) - expected
    inner = error[SURROUNDINGS // 2 : -SURROUNDINGS // 2, SURROUNDINGS // 2 : -SURROUNDINGS // 2]
    assert inner.std() <= 0.01 * strength
    assert error.std() <= 0.05 * strength  # within the surroundings of the image's own edge a window stands alone
    assert blocks.numbers_of_field.strength_rad == pytest.approx(strength, rel=0.05)
    assert blocks.numbers_of_field.noise_rad == pytest.approx(whole.estimated["noise_rad"], rel=0.1)
    assert blocks.scales.derivative_sigma * 2 == pytest.approx(whole.estimated["noise_sigma"], rel=1e-4)
    if background == "auto":
        assert blocks.levels.tolist() == pytest.approx(whole.estimated["background"])


def test_the_order_of_the_planes_does_not_matter(small_windows: PhaseTwoShot) -> None:
    image, plan = cells((192, 200)), BlockPlan(loops=(), shape=(192, 200), block=BLOCK, halo=SURROUNDINGS)
    swapped = phase_request(replace(image, array=image.array[::-1]), defocus_um=(1.0, -1.0))
    prepared = []
    for request in (phase_request(image), swapped):
        blocks, reader = survey_frame(request, small_windows, plan, 0, Fingerprint(image.array)), BlockReader(request=request, plan=plan, frame_number=0)
        prepared.append(blocks.prepare(*reader.part(slice(0, 192), slice(0, 200)), (0, 0)))
    assert np.array_equal(prepared[0].channels, prepared[1].channels)


def test_blocks_of_a_phase_field_are_the_whole_field_without_seams(tiny_phase_model, tmp_path, small_windows) -> None:
    request, model = phase_request(cells((320, 330)), samples=2, steps=2), load_model(str(tiny_phase_model))
    whole, out = drained(restore(request, model)), tmp_path / "out.ome.zarr"
    drained(restore_by_tiles(TiledRequest(request=request, out=str(out), block=BLOCK, halo=64), model))
    error = image_in(out, "mean") - whole.mean
    inner = error[32:-32, 32:-32]
    assert inner.std() <= 0.03 * whole.mean.std()
    steps = np.abs(np.diff(inner, axis=0)).mean(axis=1)
    seams = steps[[BLOCK - 33, 2 * BLOCK - 33]]
    assert seams.max() <= 3 * np.median(steps)
    assert (image_in(out, "valid") > 0).sum() == pytest.approx(whole.valid.sum(), rel=0.01)
