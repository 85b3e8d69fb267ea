"""While a frame is inverted, a fast classical method shows what it makes of the frame."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_cvdm.baselines import FIRST_LOOKS
from napari_cvdm.baselines.phase import UsTie
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, RequestError
from napari_cvdm.core.result import FrameView, Reconstruction, finished
from napari_cvdm.reconstruction.reconstruct import reconstruct

pytestmark = pytest.mark.usefixtures("few_solver_steps")
PLANES = np.random.default_rng(0).poisson(5000, (2, 40, 48)).astype(np.float32)


def request_of(model: Path, array: np.ndarray, axes: str) -> ReconstructionRequest:
    image = ImageStack(array=array, axes=axes, pixel_um=0.2)
    return ReconstructionRequest(
        image=image,
        model=str(model),
        samples=2,
        steps=2,
        device="cpu",
        wavelength_um=0.55,
        medium_index=1.33,
        defocus_um=(-1.0, 1.0),
    )


@pytest.fixture
def two_planes(tiny_phase_model: Path) -> ReconstructionRequest:
    return request_of(tiny_phase_model, PLANES, "PYX")


def look_at(
    request: ReconstructionRequest, earlier: Reconstruction | None = None
) -> tuple[list[FrameView], Reconstruction]:
    """Every first look of a run, and its result."""
    run, views = reconstruct(request, earlier=earlier), list[FrameView]()
    while True:
        try:
            progress = next(run)
        except StopIteration as end:
            return views, end.value
        view = progress.view() if progress.view is not None else None
        if view is not None and not view.valid.any():  # others say which pixels are valid
            views.append(view)


def test_the_first_look_is_that_of_the_fast_method_and_offered_once(
    two_planes: ReconstructionRequest,
) -> None:
    (view,), _ = look_at(two_planes)
    method = FIRST_LOOKS["phase-2shot"]
    assert view.samples == 0 and not view.variance.any()
    np.testing.assert_array_equal(view.mean, finished(reconstruct(two_planes, method)).mean)


def test_looking_changes_no_pixel(two_planes: ReconstructionRequest) -> None:
    _, seen = look_at(two_planes)
    unseen = finished(reconstruct(two_planes))
    np.testing.assert_array_equal(seen.mean, unseen.mean)
    np.testing.assert_array_equal(seen.variance, unseen.variance)


def test_it_shows_the_part_that_was_asked_for(two_planes: ReconstructionRequest) -> None:
    (whole,), _ = look_at(two_planes)
    (part,), result = look_at(replace(two_planes, region=(8, 40, 16, 48)))
    assert part.mean.shape == result.mean.shape
    np.testing.assert_array_equal(part.mean, whole.mean[8:40, 16:48])


def test_only_the_first_frame_of_a_movie_has_one(tiny_phase_model: Path) -> None:
    movie = request_of(tiny_phase_model, np.stack([PLANES, PLANES]), "TPYX")
    views, _ = look_at(movie)
    assert [view.index for view in views] == [(0,)]


def test_more_samples_do_not_go_back_to_it(two_planes: ReconstructionRequest) -> None:
    earlier = finished(reconstruct(two_planes))
    more = replace(two_planes, samples=3)
    views, _ = look_at(more, earlier)
    assert not views


def test_nothing_is_computed_unless_somebody_looks_and_a_fault_of_it_stops_no_run(
    two_planes: ReconstructionRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(self: UsTie, *_: object) -> Iterator[str]:
        calls.append(self)
        raise RequestError("no look")

    monkeypatch.setattr(UsTie, "solve", fail)
    unseen = finished(reconstruct(two_planes))
    assert not calls
    (view,), seen = look_at(two_planes)
    assert calls and not view.mean.any()
    np.testing.assert_array_equal(seen.mean, unseen.mean)
