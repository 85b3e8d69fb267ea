"""The thread: errors arrive as words, cancelling answers at once, nothing is kept."""

import gc
import weakref
from threading import Barrier

import pytest
from qtpy.QtCore import QThread, QThreadPool
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QLabel

from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import Progress
from napari_cvdm.widgets.common.worker import (
    AS_MADE_PERCENT,
    DRAWING_SHARE,
    LOOK_MS,
    SLOW_PERCENT,
    VIEW_INTERVAL_S,
    Control,
    Job,
    explain,
    signs,
)


@pytest.fixture(params=["test", ""])
def collected(qtbot, request):
    """Run steps to the end, with and without a line in the activity area; the messages."""

    def run(steps, cancel_after=None):
        job, said = Job(steps, title=request.param, total=5), []
        job.progressed.connect(lambda progress: said.append(progress.done))
        job.succeeded.connect(lambda result: said.append(("succeeded", result)))
        job.failed.connect(lambda message: said.append(("failed", message)))
        if cancel_after is not None:
            job.progressed.connect(lambda progress: progress.done == cancel_after and job.cancel())
        with qtbot.waitSignal(job.ended):
            job.start()
        return said

    return run


def counting(total, error=None):
    for done in range(1, total + 1):
        QThread.msleep(60)
        yield Progress(stage="counting", done=done, total=total)
    if error is not None:
        raise error
    return "the end"


def test_progress_and_result_arrive(collected):
    assert collected(counting(3)) == [1, 2, 3, ("succeeded", "the end")]


def test_a_runtime_error_arrives_as_words(collected):
    *_, (kind, message) = collected(counting(2, RuntimeError("cuDNN is unhappy.\nmany more lines")))
    assert kind == "failed"
    assert "cuDNN is unhappy." in message
    assert "\n" not in message


def test_an_error_of_ours_arrives_as_it_is(collected):
    assert collected(counting(1, RequestError("steps is 0; allowed is 1 to 1000."))) == [
        1,
        ("failed", "steps is 0; allowed is 1 to 1000."),
    ]


def test_memory_that_is_too_small_says_what_to_try():
    assert "smaller tile" in explain(MemoryError())


def test_cancel_answers_within_one_step_and_closes_the_work(collected):
    closed = []

    def steps():
        try:
            yield from counting(1000)
        finally:
            closed.append(True)

    said = collected(steps(), cancel_after=2)
    assert len(said) <= 4
    assert closed == [True]


def test_a_flood_of_steps_does_not_drown_the_window(collected):
    def flood():
        for done in range(20_000):
            yield Progress(stage="fast", done=done, total=20_000)
        return "the end"

    said = collected(flood())
    assert said[-1] == ("succeeded", "the end")
    assert len(said) < 200


def test_a_step_that_came_soon_after_another_and_lasts_is_shown_while_it_lasts(collected):
    """Else the window would show for minutes what ended before."""

    def steps():
        yield Progress(stage="loading", done=0, total=9)
        yield Progress(stage="the first tile", done=1, total=9)
        QThread.msleep(5 * LOOK_MS)
        yield Progress(stage="the second tile", done=2, total=9)
        return "the end"

    assert collected(steps()) == [0, 1, 2, ("succeeded", "the end")]


def test_what_the_work_held_is_free_after_it(collected):
    class Big:
        pass

    alive = []

    def steps():
        big = Big()
        alive.append(weakref.ref(big))
        yield from counting(1000)
        return big

    collected(steps(), cancel_after=2)
    gc.collect()
    assert alive[0]() is None


@pytest.mark.window
@pytest.mark.parametrize(("title", "listed"), [("test", True), ("", False)])
def test_napari_lists_work_with_a_title_and_keeps_nothing_of_other_work(
    qtbot, viewer, title, listed
):
    job = Job(counting(1), title=title, total=1)
    worker = weakref.ref(job._worker)
    with qtbot.waitSignal(job.ended):
        job.start()
    qtbot.waitUntil(lambda: gc.collect() >= 0 and (worker() is not None) == listed)


@pytest.mark.window
def test_the_sign_of_activity_turns_slowly_during_a_run_and_as_it_was_made_after_it(qtbot, viewer):
    speeds = []
    of_another = QLabel()
    of_another.setMovie(QMovie(parent=of_another))
    of_another.movie().setSpeed(70)
    qtbot.addWidget(of_another)
    job = Job(counting(2), title="test", total=2)
    job.progressed.connect(lambda _: speeds.append({movie.speed() for movie in signs()}))
    with qtbot.waitSignal(job.ended):
        job.start()
    assert speeds[0] == {SLOW_PERCENT}
    assert {movie.speed() for movie in signs()} == {AS_MADE_PERCENT}
    assert of_another.movie().speed() == 70


@pytest.mark.parametrize("drawing_s", [0.0, 0.001, 0.1, 3.0])
def test_views_come_at_most_at_4_hz_and_never_take_more_than_their_share_of_the_time(drawing_s):
    control = Control()
    assert control.view_interval_s == VIEW_INTERVAL_S == 0.25
    control.drawn_in(drawing_s)
    assert control.view_interval_s >= VIEW_INTERVAL_S
    assert drawing_s <= 1.000001 * DRAWING_SHARE * control.view_interval_s


def test_more_work_than_processors_goes_on_at_once(qtbot):
    threads = QThreadPool.globalInstance()
    most, meeting = threads.maxThreadCount(), Barrier(5)

    def meet():
        yield Progress(stage="waiting for the others", done=0, total=1)
        meeting.wait(timeout=60)
        return "met"

    threads.setMaxThreadCount(1)
    try:
        jobs, said = [Job(meet(), title="", total=1) for _ in range(meeting.parties)], []
        for job in jobs:
            job.succeeded.connect(said.append)
            job.failed.connect(said.append)
            job.start()
        qtbot.waitUntil(lambda: len(said) == len(jobs))
    finally:
        threads.setMaxThreadCount(most)
    assert said == ["met"] * len(jobs)
