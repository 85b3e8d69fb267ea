"""Phase block by block: low frequencies of the whole, details of each part, and no seams."""

from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from cut_planes import OPTICS as CUT_OPTICS
from cut_planes import take_planes
from scipy.ndimage import gaussian_filter
from small_images import phase_request
from small_images import planes as small_planes
from zarr_results import image_in

from napari_cvdm.core.intensity import measured_pixels
from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.core.result import finished as drained
from napari_cvdm.core.tiling import BlockPlan
from napari_cvdm.io import Fingerprint
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core.global_statistics import BlockReader, measure_frame_statistics
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from napari_cvdm.reconstruction.plan import prepare_frame, resolve
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import TASKS, PhaseTwoShot, phase_blocks
from napari_cvdm.tasks.phase_inversion import NOISE_ORIGIN
from napari_cvdm.tasks.phase_posterior import PhasePosterior

pytestmark = pytest.mark.usefixtures("remembered_inversions")
SURROUNDINGS, BLOCK = 64, 64
SHAPE = (256, 80)  # two windows of 192 rows, which meet in row 128
SEAM = 128
MARGIN = 24  # of the simulated field around the frame, which cuts cells
DEFOCUS_UM = (-2.0, 2.0)
MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)


@cache
def draw_cells() -> np.ndarray:
    """Round cells on cell-free background [rad], with what lies around the frame."""
    rng, (height, width) = np.random.default_rng(0), (size + 2 * MARGIN for size in SHAPE)
    phase = np.zeros((height, width))
    for _ in range(11):
        radius = rng.uniform(6, 28)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        distance = np.hypot(*np.ogrid[-y : height - y - 0.5, -x : width - x - 0.5])
        dome = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, None))
        phase = np.maximum(phase, rng.uniform(0.3, 1) * dome)
    return gaussian_filter(phase, 2)


def inside(image: np.ndarray) -> np.ndarray:
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


@cache
def planes() -> ImageStack:
    """Their noisy planes [counts]."""
    phase = draw_cells()
    counts = 1000 * inside(defocus_pair_of(phase, 0 * phase, MICROSCOPE, DEFOCUS_UM))
    noisy = counts + np.random.default_rng(1).normal(0, 2, counts.shape)
    return ImageStack(array=noisy.astype(np.float32), axes="PYX", pixel_um=0.2)


def request_of(image: ImageStack, **changes):
    return phase_request(image, **{"defocus_um": DEFOCUS_UM, **changes})


@cache
def whole_estimate() -> np.ndarray:
    return prepare_frame(planes().array, request_of(planes()), PhaseTwoShot()).estimate


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> PhaseTwoShot:
    """The task with small surroundings, and one window to measure the numbers of a field in."""
    small = replace(PhaseTwoShot(), context_px=SURROUNDINGS)
    monkeypatch.setitem(TASKS, small.name, small)
    monkeypatch.setattr(phase_blocks, "SURVEYED_WINDOWS", 1)
    return small


def survey(task: PhaseTwoShot, request):
    """The numbers of a whole field, and what reads its parts."""
    shape = request.image.array.shape[-2:]
    layout = BlockPlan(loops=(), shape=shape, block=BLOCK, halo=SURROUNDINGS)
    plan = resolve(request, task)
    blocks = finished(
        measure_frame_statistics(plan, task, layout, 0, Fingerprint(request.image.array))
    )
    reader = BlockReader(plan=plan, layout=layout, frame_number=0, boxes=blocks.boxes)
    return blocks.blocks, reader


def estimate_by_blocks(task: PhaseTwoShot, request) -> np.ndarray:
    """The physical estimate [rad] of every block, put together; blocks of one window share it."""
    blocks, reader = survey(task, request)
    together, windows = np.zeros(reader.shape), {}
    for block in reader.layout.blocks():
        first = block.rows.read_start, block.columns.read_start
        if first not in windows:
            windows[first] = finished(blocks.prepare(*reader.part(*block.window), first)).estimate
        core = block.rows.inner(), block.columns.inner()
        together[block.written(1)] = windows[first][core]
    assert len(windows) == 2
    return together


def seam(error: np.ndarray) -> float:
    """The mean step of an error where two windows meet, over the strength of the phase."""
    step = np.abs(error[SEAM] - error[SEAM - 1]).mean()
    return float(step / np.std(whole_estimate()))


def deviation(error: np.ndarray) -> float:
    return float(np.std(error) / np.std(whole_estimate()))


def test_parts_are_the_whole_field(task: PhaseTwoShot) -> None:
    """Where the coarse whole is the whole: nothing but the windows' own borders differs."""
    error = estimate_by_blocks(task, request_of(planes())) - whole_estimate()
    assert deviation(error[32:-32]) <= 0.05
    assert deviation(error) <= 0.06
    assert abs(error.mean()) <= 0.02 * np.std(whole_estimate())
    assert seam(error) <= 0.06


def test_a_coarse_whole_is_as_near_to_the_truth(task: PhaseTwoShot, monkeypatch) -> None:
    """Low frequencies that the light leaves open differ, but the phase is not farther off."""
    monkeypatch.setattr(phase_blocks, "LARGEST_COARSE_PX", SHAPE[0] // 2)
    together, truth = estimate_by_blocks(task, request_of(planes())), inside(draw_cells())
    error = together - whole_estimate()
    fine = error - gaussian_filter(error, 16)
    assert deviation(together - truth) <= 1.1 * deviation(whole_estimate() - truth)
    assert deviation(fine[32:-32]) <= 0.05
    assert seam(error) <= 0.06


@pytest.mark.usefixtures("few_solver_steps")
def test_an_image_of_the_blank_field_takes_uneven_light_out(task: PhaseTwoShot) -> None:
    flat = 1000 * (1 + 0.2 * np.linspace(-1, 1, SHAPE[1])) * np.ones((SHAPE[0], 1))
    lit = replace(planes(), array=(planes().array * flat / 1000).astype(np.float32))
    even, uneven = (
        survey(task, request)
        for request in (request_of(planes()), request_of(lit, background=flat))
    )
    window = slice(64, 256), slice(0, SHAPE[1])
    expected, found = (
        finished(blocks.prepare(*reader.part(*window), (64, 0))).estimate
        for blocks, reader in (even, uneven)
    )
    np.testing.assert_allclose(found, expected, atol=0.02 * np.std(expected))


def small_part() -> ImageStack:
    return replace(planes(), array=planes().array[:, 80:160, :80].copy())


@pytest.mark.usefixtures("few_solver_steps")
def test_the_order_of_the_planes_does_not_matter(task: PhaseTwoShot) -> None:
    image, prepared = small_part(), []
    swapped = replace(image, array=image.array[::-1].copy())
    for request in (request_of(image), request_of(swapped, defocus_um=DEFOCUS_UM[::-1])):
        blocks, reader = survey(task, request)
        prepared.append(finished(blocks.prepare(*reader.part(slice(0, 80), slice(0, 80)), (0, 0))))
    assert np.array_equal(prepared[0].channels, prepared[1].channels)
    assert np.array_equal(prepared[0].estimate, prepared[1].estimate)


@pytest.mark.usefixtures("few_solver_steps")
def test_numbers_come_back(task: PhaseTwoShot) -> None:
    blocks, reader = survey(task, request_of(small_part(), condenser_na=0.1, na=0.6))
    again = task.blocks(blocks.numbers())
    assert asdict(again).keys() == asdict(blocks).keys()
    for name in (
        "microscope",
        "defocus_um",
        "condenser_na",
        "step",
        "zero",
        "field_numbers",
        "seed",
    ):
        assert getattr(again, name) == getattr(blocks, name), name
    assert np.array_equal(again.coarse, blocks.coarse)
    assert np.array_equal(again.draws, blocks.draws)
    assert np.array_equal(again.levels, blocks.levels)
    parts = [
        finished(one.prepare(*reader.part(slice(0, 80), slice(0, 80)), (0, 0)))
        for one in (blocks, again)
    ]
    assert np.array_equal(parts[0].channels, parts[1].channels)


@pytest.mark.usefixtures("few_solver_steps")
def test_a_part_lies_where_it_is_in_the_whole(task: PhaseTwoShot) -> None:
    """Noise belongs to absolute pixels, only pixels without a measurement are not valid."""
    image = small_part()
    image.array[:, 40:44, 20:30] = 0
    blocks, reader = survey(task, request_of(image))
    whole = prepare_frame(image.array, request_of(image), task)
    part = finished(blocks.prepare(*reader.part(slice(32, 80), slice(16, 80)), (32, 16)))
    for axis, first in enumerate((32, 16)):
        assert part.frame[axis].start + part.origin[axis] == NOISE_ORIGIN + first
        assert whole.frame[axis].start + whole.origin[axis] == NOISE_ORIGIN
    expected = np.ones(image.array.shape[1:], dtype=bool)
    expected[40:44, 20:30] = False
    assert np.array_equal(whole.kept(whole.valid), expected)
    assert np.array_equal(part.kept(part.valid), expected[32:, 16:])
    assert np.isfinite(blocks.coarse).all()
    assert blocks.level == pytest.approx(blocks.field_numbers.level - blocks.zero)


def draw_by_blocks(task: PhaseTwoShot, count: int) -> np.ndarray:
    """Draws of the whole field [rad], put together from its two windows: (S, Y, X)."""
    blocks, reader = survey(task, request_of(planes(), samples=2 * count))
    halves = []
    for rows in (slice(0, 192), slice(64, 256)):
        part = finished(blocks.prepare(*reader.part(rows, slice(0, SHAPE[1])), (rows.start, 0)))
        zero = part.posterior.blend(part.posterior.estimate)
        halves.append(
            [
                part.kept(
                    finished(part.posterior.refine(part.posterior.estimate, 2 * stream)) - zero
                )
                for stream in range(count)
            ]
        )
    return np.concatenate(
        [np.stack(halves[0])[:, :SEAM], np.stack(halves[1])[:, SEAM - 64 :]], axis=1
    )


def test_draws_of_parts_are_as_wide_as_those_of_the_whole_and_meet(task: PhaseTwoShot) -> None:
    posterior = prepare_frame(planes().array, request_of(planes()), PhaseTwoShot()).posterior
    assert isinstance(posterior, PhasePosterior)
    whole, parts = finished(posterior.draw_phases(2)) - whole_estimate(), draw_by_blocks(task, 2)
    assert 0.8 < np.std(parts) / np.std(whole) < 1.25
    step = np.abs(parts[:, SEAM] - parts[:, SEAM - 1]).mean()
    assert step < 2 * np.abs(np.diff(whole, axis=1)).mean()


def test_three_planes_are_surveyed(task: PhaseTwoShot) -> None:
    cut = take_planes(CUT_OPTICS["three planes"], shape=(64, 64))
    blocks, reader = survey(task, cut.request())
    part = finished(blocks.prepare(*reader.part(slice(0, 64), slice(0, 64)), (0, 0)))
    whole = prepare_frame(cut.counts, cut.request(), task)
    assert len(blocks.levels) == 3
    assert np.std(part.estimate - whole.estimate) < 0.05 * np.std(whole.estimate)


def test_planes_without_light_are_refused(task: PhaseTwoShot) -> None:
    dark = small_part()
    dark.array[:] = 0
    dark.array[:, 0, 0] = 1e-3
    with pytest.raises(RequestError, match="not positive"):
        survey(task, request_of(dark))


def test_blocks_of_a_phase_field_are_the_whole_field(
    tiny_phase_model, tmp_path, task, monkeypatch
) -> None:
    """The draws of two samples are opposite, so that the mean has none."""
    request, model = request_of(planes(), samples=2, steps=2), load_model(str(tiny_phase_model))
    whole = drained(reconstruct(request, model, check=False))
    job = BlockJob(request=request, out=str(tmp_path / "out.ome.zarr"), block=BLOCK, halo=64)
    drained(reconstruct_by_blocks(job, model))
    error = image_in(tmp_path / "out.ome.zarr", "mean") - whole.mean
    assert error[32:-32].std() <= 0.1 * whole.mean.std()
    assert np.abs(error[SEAM] - error[SEAM - 1]).mean() <= 0.15 * whole.mean.std()
    assert np.array_equal(image_in(tmp_path / "out.ome.zarr", "valid") > 0, whole.valid)


def test_a_border_of_zeros_is_not_measured_in_either_path(tiny_phase_model, tmp_path) -> None:
    """As after registration: the whole image, and blocks of zeros and of NaN, give one result."""
    counts = small_planes((72, 100)).array.round().astype(np.uint16)
    counts[..., -7:] = 0
    counts[..., :10, :] = 0
    counts[1, 66:], counts[1, :, :8] = 0, 0  # each plane was moved elsewhere
    image = ImageStack(array=counts, axes="PYX", pixel_um=0.2)
    model = load_model(str(tiny_phase_model))
    whole, found = drained(reconstruct(phase_request(image, steps=2), model)), []
    measured = np.stack([measured_pixels(plane) for plane in counts])
    unmeasured = np.where(measured, counts.astype(np.float32), np.nan)
    for name, array in (("zeros", counts), ("nan", unmeasured)):
        request = phase_request(replace(image, array=array), steps=2)
        job = BlockJob(request=request, out=str(tmp_path / f"{name}.ome.zarr"), block=64, halo=64)
        drained(reconstruct_by_blocks(job, model))
        names = ("mean", "std", "valid")
        found.append({one: image_in(tmp_path / f"{name}.ome.zarr", one) for one in names})
    zeros, nan = found
    for name in zeros:
        np.testing.assert_allclose(zeros[name], nan[name], atol=1e-3 * np.ptp(nan[name]))
    np.testing.assert_array_equal(zeros["valid"] > 0, whole.valid)
    kept = whole.mean[whole.valid]
    error = zeros["mean"][whole.valid] - kept
    assert error.std() <= 0.03 * kept.std()
    assert np.abs(error).max() <= 0.03 * np.ptp(kept)
