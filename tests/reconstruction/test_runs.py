"""A run may be resumed, stopped, watched, or confined to a part of the image.

It gives what one whole run would have given.
"""

from dataclasses import asdict, replace

import dask.array as da
import numpy as np
import pytest
from small_images import OPTICS, phase_request, planes, spots, widefield_request

from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import Stop
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import combine_planes
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.command import command_of
from napari_cvdm.reconstruction.reconstruct import reconstruct

pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


def run(request, model, earlier=None):
    return drained(reconstruct(request, load_model(str(model)), earlier))


def stopped(request, model, after, earlier=None):
    """Stop and keep once so many evaluations are done."""
    steps = reconstruct(request, load_model(str(model)), earlier)
    try:
        while next(steps).done < after:
            pass
        steps.send(Stop.KEEP)
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def same(one, other):
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in ("mean", "variance", "rate", "valid", "counts")
    )


@pytest.mark.parametrize("keep_samples", [False, True])
def test_samples_added_later_give_the_bytes_of_one_run(tiny_phase_model, keep_samples):
    request = phase_request(planes((48, 56)), samples=5, keep_samples=keep_samples)
    part = run(replace(request, samples=2), tiny_phase_model)
    whole, continued = run(request, tiny_phase_model), run(request, tiny_phase_model, part)
    assert same(whole, continued)
    assert not keep_samples or whole.samples.tobytes() == continued.samples.tobytes()


def test_adding_samples_draws_only_those_that_are_missing(tiny_widefield_model):
    request = widefield_request(spots((40, 36)), samples=2)
    part = run(request, tiny_widefield_model)
    steps = reconstruct(replace(request, samples=5), load_model(str(tiny_widefield_model)), part)
    first, *done = [step.done for step in steps if step.view is not None]
    assert first == 2 * request.steps < done[0] <= 5 * request.steps == done[-1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "seed"),
        ({"steps": 4}, "steps"),
        ({"image": planes((48, 48), seed=9)}, "image"),
        ({"samples": 2}, "ask for more"),
    ],
)
def test_samples_are_added_to_the_same_request_only(tiny_phase_model, change, says):
    request = phase_request(planes((48, 48)))
    part = run(request, tiny_phase_model)
    with pytest.raises(RequestError, match=says):
        run(replace(request, **{"samples": 4, **change}), tiny_phase_model, part)


@pytest.mark.parametrize(("after", "finished"), [(1, 1), (3, 1), (7, 1), (16, 5)])
def test_a_stopped_run_keeps_what_is_finished(tiny_phase_model, after, finished):
    """Unfinished samples are dropped, unless it is the first of all.

    A sample has three steps. The first is made alone, then four together.
    """
    request = phase_request(planes((48, 48)), samples=7, keep_samples=True)
    result = stopped(request, tiny_phase_model, after)
    shorter = run(replace(request, samples=finished), tiny_phase_model)
    assert same(result, shorter)
    assert result.samples.tobytes() == shorter.samples.tobytes()
    assert result.provenance.warnings[-1].startswith(f"stopped with {finished} of 7")
    assert result.provenance.settings == shorter.provenance.settings


def test_a_stopped_time_lapse_keeps_its_first_frames_and_goes_on_later(tiny_widefield_model):
    request = widefield_request(spots((4, 40, 36), axes="TYX"))
    result = stopped(request, tiny_widefield_model, 2 * 2 * 3 + 1)
    assert result.counts.tolist() == [2, 2, 0, 0]
    assert not result.valid[2:].any()
    assert same(run(request, tiny_widefield_model, result), run(request, tiny_widefield_model))


@pytest.mark.parametrize(("after", "finished"), [(6, 2), (7, 2), (9, 2), (12, 4)])
def test_a_stop_at_any_step_of_a_time_lapse_begins_no_further_frame(
    tiny_widefield_model, after, finished
):
    """Two samples of three steps to a frame: a frame ends after 6 and 12 evaluations."""
    result = stopped(widefield_request(spots((4, 40, 36), axes="TYX")), tiny_widefield_model, after)
    assert result.counts.sum() == finished
    assert not result.counts[2:].any()


def test_a_time_lapse_that_is_stopped_while_samples_are_added_loses_nothing(tiny_widefield_model):
    request = widefield_request(spots((3, 40, 36), axes="TYX"), keep_samples=True)
    before = run(request, tiny_widefield_model)
    result = stopped(replace(request, samples=4), tiny_widefield_model, 4 * 3, before)
    assert result.counts.tolist() == [4, 2, 2]
    for name in ("mean", "variance", "rate", "valid"):
        assert np.array_equal(getattr(result, name)[1:], getattr(before, name)[1:]), name
    with pytest.raises(RequestError, match="no command gives its pixels"):
        next(command_of(asdict(result.provenance), {"image": "movie.npy"}))
    assert "1 with all 4 samples, 2 with fewer, and 0 empty" in result.provenance.warnings[-1]


def test_frames_with_fewer_samples_than_others_catch_up_first(tiny_widefield_model):
    request = widefield_request(spots((2, 40, 36), axes="TYX"), samples=6, keep_samples=True)
    part = stopped(request, tiny_widefield_model, 6 * 3 + 4 * 3)
    assert part.counts.tolist() == [6, 4]
    with pytest.raises(RequestError, match="6 already"):
        run(replace(request, samples=5), tiny_widefield_model, part)
    assert same(run(request, tiny_widefield_model, part), run(request, tiny_widefield_model))


def test_every_view_is_what_the_result_will_hold(tiny_widefield_model):
    request = widefield_request(spots((2, 40, 36), axes="TYX"))
    steps, views = reconstruct(request, load_model(str(tiny_widefield_model))), {}
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result = end.value
            break
        if progress.view is None:  # the frame is being prepared
            continue
        view = progress.view()
        assert view.mean.shape == (80, 72)
        views |= {view.index: view} if progress.frame_done else {}
    for index, view in views.items():
        assert view.samples == 2
        for name in ("mean", "variance", "rate", "valid"):
            assert np.array_equal(getattr(view, name), getattr(result, name)[index]), name


def test_looking_changes_nothing(tiny_phase_model):
    request = phase_request(planes((48, 48)))
    steps = reconstruct(request, load_model(str(tiny_phase_model)))
    while True:
        try:
            progress = next(steps)
            if progress.view is not None:
                progress.view()
        except StopIteration as end:
            assert same(end.value, run(request, tiny_phase_model))
            return


@pytest.mark.parametrize("model", ["phase", "widefield"])
def test_a_region_is_what_the_whole_image_shows_there(
    tiny_phase_model, tiny_widefield_model, model
):
    region, phase = (150, 190, 37, 90), model == "phase"
    request = (
        phase_request(planes((300, 260)), steps=1)
        if phase
        else widefield_request(spots((300, 260)), steps=1)
    )
    folder, fine = (tiny_phase_model, 1) if phase else (tiny_widefield_model, 2)
    loaded = load_model(str(folder))
    whole, part = (
        drained(reconstruct(one, loaded, check=False))
        for one in (request, replace(request, region=region))
    )
    there = whole.mean[region[0] * fine : region[1] * fine, region[2] * fine : region[3] * fine]
    assert part.mean.shape == there.shape
    difference = part.mean - there
    difference -= difference.mean() if phase else 0
    assert np.abs(difference).max() <= (2e-2 if phase else 1e-5) * np.ptp(whole.mean)


@pytest.mark.parametrize(
    "region", [(0, 300, 0, 10), (-1, 40, 0, 40), (0, 301, 0, 40), (40, 20, 0, 40)]
)
def test_a_region_outside_the_image_or_too_small_is_refused(region):
    with pytest.raises(RequestError, match="region is"):
        widefield_request(spots((300, 260)), region=region)


class Counted:
    """A lazy array that remembers which frames were read."""

    def __init__(self, array):
        self.array, self.read = array, []

    def lazy(self):
        return da.map_blocks(
            self.block,
            chunks=((1,) * len(self.array), *((size,) for size in self.array.shape[1:])),
            dtype=self.array.dtype,
            meta=self.array[:0],
        )

    def block(self, block_info=None):
        index = block_info[None]["chunk-location"][0]
        self.read.append(index)
        return self.array[index : index + 1]


def test_of_a_lazy_image_only_the_frames_that_are_restored_are_read(tiny_widefield_model):
    movie = spots((5, 40, 36), axes="TYX")
    counted = Counted(movie.array)
    lazy = replace(movie, array=counted.lazy())
    assert same(
        run(widefield_request(lazy), tiny_widefield_model),
        run(widefield_request(movie), tiny_widefield_model),
    )
    assert sorted(counted.read) == [0, 1, 2, 3, 4]
    counted.read.clear()
    result = stopped(widefield_request(lazy), tiny_widefield_model, 7)
    assert sorted(counted.read) == [0, 1]
    assert "of the first 2 of 5 frames" in result.provenance.inputs["array"]


def test_a_lazy_image_has_the_fingerprint_of_the_same_one_in_memory(tiny_widefield_model):
    movie = spots((2, 40, 36), axes="TYX")
    lazy = replace(movie, array=da.from_array(movie.array, chunks=(1, 20, 36)))
    one, other = (
        run(widefield_request(image, samples=1, steps=1), tiny_widefield_model)
        for image in (movie, lazy)
    )
    assert one.provenance.inputs == other.provenance.inputs


def test_a_bad_frame_of_a_lazy_image_is_named_and_skipped(tiny_widefield_model):
    array = spots((3, 40, 36), axes="TYX").array.astype(np.float32)
    array[1] = np.nan
    lazy = ImageStack(
        array=da.from_array(array, chunks=(1, 40, 36)), axes="TYX", pixel_um=0.065, source="movie"
    )
    found = run(widefield_request(lazy, samples=1, steps=1), tiny_widefield_model)
    assert found.counts.tolist() == [1, 0, 1]
    assert any("movie, frame T 1" in text for text in found.provenance.warnings)


def test_lazy_planes_are_combined_without_reading_them(tiny_phase_model):
    pair = planes((48, 48)).array
    first, second = (
        ImageStack(
            array=da.from_array(plane[None].repeat(2, axis=0), chunks=(1, 48, 48)),
            axes="TYX",
            pixel_um=0.2,
        )
        for plane in pair
    )
    both = combine_planes(first, second)
    assert both.lazy
    assert both.axes == "TPYX"
    result = run(
        ReconstructionRequest(image=both, model="tiny", samples=1, steps=1, device="cpu", **OPTICS),
        tiny_phase_model,
    )
    alone = run(phase_request(planes((48, 48)), samples=1, steps=1), tiny_phase_model)
    assert np.array_equal(result.mean[0], alone.mean)
