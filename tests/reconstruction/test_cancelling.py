"""A run can be cancelled, or stopped and kept, before every tile; its progress never goes back."""

import re
from itertools import pairwise

import numpy as np
import pytest
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.core.request import ImageStack
from napari_cvdm.core.result import Stop, finished
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.registry import load_model
from napari_cvdm.models.tiled import SMALLEST_TILE
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from napari_cvdm.physics import tie
from napari_cvdm.physics.forward_model import PhaseForwardModel
from napari_cvdm.physics.widefield import WidefieldForwardModel
from napari_cvdm.reconstruction import sampling
from napari_cvdm.reconstruction.cost import estimate
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.plan import resolve
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.tasks import TASKS

NETWORKS = ("mean_residual", "residual_std", "rate", "clean")
SHAPE = (30, 40)


def counted(monkeypatch, owner, names):
    """Count the calls of methods in a list."""
    calls = []

    def count(name, really):
        def call(*given):
            calls.append(name)
            return really(*given)

        monkeypatch.setattr(owner, name, call)

    for name in names:
        count(name, getattr(owner, name))
    return calls


@pytest.fixture
def evaluations(monkeypatch):
    """Every evaluation of a network on a tile."""
    return counted(monkeypatch, CVDM, NETWORKS)


def tiled_request(**changes):
    return widefield_request(spots(SHAPE), tile=SMALLEST_TILE, **changes)


def runs_of(model, folder):
    """The ways in which a network is evaluated over tiles."""
    image, checkpoint = spots((100, 130)), load_model(str(model))
    large = BlockJob(
        request=widefield_request(image, tile=SMALLEST_TILE),
        out=str(folder / "a.ome.zarr"),
        block=64,
        halo=0,
    )
    movie = widefield_request(spots((2, *SHAPE), axes="TYX"), tile=SMALLEST_TILE)
    return {
        "image": lambda: reconstruct(tiled_request(samples=6), checkpoint),
        "movie": lambda: reconstruct(movie, checkpoint),
        "blocks": lambda: reconstruct_by_blocks(large, checkpoint),
    }


@pytest.mark.usefixtures("few_solver_steps")
@pytest.mark.parametrize("name", ["image", "movie", "blocks"])
def test_progress_never_goes_back_and_has_a_step_before_every_tile(
    tiny_widefield_model, tmp_path, evaluations, name
):
    seen, before, most = [], 0, 0
    for step in runs_of(tiny_widefield_model, tmp_path)[name]():
        most, before = max(most, len(evaluations) - before), len(evaluations)
        seen.append(step)
    assert len(evaluations) > 50
    assert max(most, len(evaluations) - before) == 1
    assert seen[0].done == 0
    assert all(one.done <= other.done for one, other in pairwise(seen))
    assert {step.total for step in seen} == {seen[0].total}
    assert seen[-1].done == seen[-1].total
    assert sum(one.done < other.done for one, other in pairwise(seen)) > seen[0].total


@pytest.mark.usefixtures("few_solver_steps")
def test_a_run_that_is_closed_at_any_step_evaluates_nothing_more(tiny_widefield_model, evaluations):
    model = load_model(str(tiny_widefield_model))
    steps = len(list(reconstruct(tiled_request(), model)))
    for last in np.linspace(0, steps - 2, 12).astype(int):
        run = reconstruct(tiled_request(), model)
        for _ in range(last + 1):
            next(run)
        evaluations.clear()
        run.close()
        assert evaluations == []
        assert next(run, "ended") == "ended"


@pytest.mark.parametrize(
    ("name", "owner", "method"),
    [
        ("richardson-lucy", WidefieldForwardModel, "adjoint"),
        ("widefield-x2", WidefieldForwardModel, "adjoint"),
        ("phase-physics", PhaseForwardModel, "derivative"),
    ],
)
def test_solvers_say_every_step(monkeypatch, name, owner, method):
    """The start of a solver and its last check are one step more."""
    calls = counted(monkeypatch, owner, [method])
    if name == "phase-physics":
        image = planes((48, 40))
        request = phase_request(image, model=name)
        work = load_method(name).solve(image.array, resolve(request, TASKS["phase-2shot"]))
    else:
        image, task = spots(SHAPE), TASKS["widefield-x2"]
        plan, frame = resolve(widefield_request(image, model=name), task), image.array[None]
        work = (
            task.prepare(frame, plan) if name == task.name else load_method(name).solve(frame, plan)
        )
    before, most, stages = 0, 0, []
    for stage in work:
        stages.append(stage)
        most, before = max(most, len(calls) - before), len(calls)
    assert len(stages) >= len(calls) - 3
    assert max(most, len(calls) - before) <= 3
    assert all(stages)


def test_us_tie_says_every_round(monkeypatch):
    calls = counted(monkeypatch, tie, ["inverse_laplacian"])
    image = planes((48, 40))
    request = phase_request(image, model="us-tie")
    before, most = 0, 0
    for _ in load_method("us-tie").solve(image.array, resolve(request, TASKS["phase-2shot"])):
        most, before = max(most, len(calls) - before), len(calls)
    assert len(calls) > 1
    assert max(most, len(calls) - before) == 1


def test_the_check_of_a_phase_says_every_step(monkeypatch, tiny_phase_model):
    calls = counted(monkeypatch, PhaseForwardModel, ["derivative"])
    request = phase_request(planes((48, 40)))
    before, most, said = 0, 0, []
    for step in reconstruct(request, load_model(str(tiny_phase_model))):
        most, before = max(most, len(calls) - before), len(calls)
        said.append(step.stage)
    assert max(most, len(calls) - before) <= 3
    assert sum("the check, step" in stage for stage in said) > 10


def test_the_first_look_at_the_cost_says_every_step_of_preparing(tiny_phase_model):
    steps = list(estimate(phase_request(planes((48, 40))), load_model(str(tiny_phase_model))))
    assert len(steps) > 50


@pytest.mark.usefixtures("few_solver_steps")
def test_progress_never_goes_back_when_the_memory_is_too_small(tiny_widefield_model, monkeypatch):
    from napari_cvdm.models import tiled

    really = tiled.map_tiles

    def halving(function, images, plan, *, factor_out):
        work = really(function, images, plan, factor_out=factor_out)
        while True:
            try:
                tile = next(work)
            except StopIteration as end:
                return end.value
            if 1 < len(plan.tiles) < 6 and tile[0] == 2:
                raise MemoryError
            yield tile

    monkeypatch.setattr(tiled, "map_tiles", halving)
    request = widefield_request(spots((80, 70)), tile=64)
    seen = list(reconstruct(request, load_model(str(tiny_widefield_model))))
    assert all(one.done <= other.done for one, other in pairwise(seen))


def test_stages_say_what_is_done_in_words(tiny_widefield_model):
    run = reconstruct(tiled_request(samples=2), load_model(str(tiny_widefield_model)))
    said = [step.stage for step in run]
    for wanted in (
        r"deconvolving, step \d+ of \d+",
        r"mean, tile 3 of \d+",
        r"noise-rate map, tile 2 of \d+",
        r"sample 2 of 2, tile 4 of \d+, step 3 of 3",
    ):
        assert any(re.fullmatch(wanted, stage) for stage in said), wanted
    place = [
        next(number for number, stage in enumerate(said) if stage.startswith(word))
        for word in ("deconvolving", "mean", "noise-rate map", "sample 1", "sample 2")
    ]
    assert place == sorted(place)


def kept_at(run, is_time):
    """What a run returns that is asked to stop and keep at the first step for which it is time."""
    try:
        while not is_time(next(run)):
            pass
        run.send(Stop.KEEP)
        while True:
            next(run)
    except StopIteration as end:
        return end.value


def test_stop_and_keep_ends_within_one_tile_with_the_finished_samples(
    tiny_widefield_model, evaluations
):
    model, whole = load_model(str(tiny_widefield_model)), tiled_request(samples=3)
    alone = finished(reconstruct(tiled_request(samples=1), model))
    run, seen = reconstruct(whole, model), []

    def is_time(step):
        seen.append(len(evaluations))
        return step.stage.startswith("samples 2 to 3 of 3, tile 3")

    found = kept_at(run, is_time)
    assert len(evaluations) <= seen[-1] + 1
    assert found.counts == 1
    np.testing.assert_array_equal(found.mean, alone.mean)


def test_samples_of_a_group_that_are_finished_stay(tiny_widefield_model):
    """After the last step of a group its samples are finished one after the other."""
    model = load_model(str(tiny_widefield_model))
    request = widefield_request(spots(SHAPE), samples=5)
    assert sampling.SAMPLES_TOGETHER == 4
    found = kept_at(reconstruct(request, model), lambda step: step.done == 5 * 3 - 2)
    fewer = finished(reconstruct(widefield_request(spots(SHAPE), samples=3), model))
    assert found.counts == 3
    np.testing.assert_array_equal(found.mean, fewer.mean)
    np.testing.assert_array_equal(found.variance, fewer.variance)


def test_stop_and_keep_while_a_frame_is_prepared_keeps_those_before_it(
    tiny_widefield_model, evaluations
):
    model = load_model(str(tiny_widefield_model))
    movie = spots((3, *SHAPE), axes="TYX")
    seen = []

    def is_time(step):
        seen.append(len(evaluations))
        return step.stage.startswith("deconvolving") and "frame 2 of 3" in step.stage

    found = kept_at(reconstruct(widefield_request(movie), model), is_time)
    first = ImageStack(array=movie.array[0], axes="YX", pixel_um=movie.pixel_um)
    assert len(evaluations) == seen[-1]
    assert found.counts.tolist() == [2, 0, 0]
    alone = finished(reconstruct(widefield_request(first), model))
    np.testing.assert_array_equal(found.mean[0], alone.mean)


def test_the_physics_alone_is_the_first_view_after_the_first_look(tiny_widefield_model):
    request = widefield_request(spots((40, 36)), samples=2, steps=3)
    _, *views = [
        progress.view()
        for progress in reconstruct(request, load_model(str(tiny_widefield_model)))
        if progress.view is not None
    ]
    assert views[0].samples == 0 and not views[0].variance.any()
    estimate = finished(
        TASKS["widefield-x2"].prepare(
            np.asarray(request.image.array)[None], resolve(request, TASKS["widefield-x2"])
        )
    ).estimate
    np.testing.assert_array_equal(views[0].mean, estimate)
