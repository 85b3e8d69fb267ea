"""How fast a followed camera is reconstructed: `xvfb-run -a python -m benchmarks.live`. Frames per second of this machine.

The first part needs no window: a thread posts 256 x 256 frames at a camera's pace. The second streams Micro-Manager's demo camera into a
napari layer that the Live dock follows, if pymmcore-plus and mm-test-adapters are there: what the camera's own buffer lost, and how long
writing a frame into the layer took, without and with a follower.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Row, print_rows
from benchmarks.speed import SIZE, request_for
from napari_cvdm.device import pick_device
from napari_cvdm.follow.live import LiveFrame, follow
from napari_cvdm.follow.mailbox import Mailbox, ReadFrame
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.tiled import channels_last
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import RestoreRequest
from napari_cvdm.widgets.live_feed import LayerFeed

CAMERA_HZ, FRAMES, WARM_UP = 30.0, 20, 3
CAMERA_S = 8.0


@contextmanager
def camera(request: RestoreRequest, mailbox: Mailbox[ReadFrame]) -> Iterator[None]:
    """Post a new noisy frame at the camera's pace."""
    rng, over = np.random.default_rng(0), Event()
    noise = [request.image.array + rng.standard_normal(request.image.array.shape) * request.image.array.std() / 10 for _ in range(8)]
    frames = [replace(request.image, array=array.astype(np.float32)) for array in noise]

    def shoot() -> None:
        number = 0
        while not over.wait(1 / CAMERA_HZ):
            mailbox.post(partial(frames.__getitem__, number % len(frames)))
            number += 1

    thread = Thread(target=shoot)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def live_frames(model: Checkpoint, steps: int) -> tuple[list[LiveFrame], int]:
    """The frames of one following, without those that warm up, and how many were posted."""
    request = replace(request_for(model), steps=steps)
    mailbox: Mailbox[ReadFrame] = Mailbox()
    frames: list[LiveFrame] = []
    with camera(request, mailbox):
        for event in follow(mailbox, request, model):
            if isinstance(event, LiveFrame):
                frames.append(event)
                if len(frames) == FRAMES + WARM_UP:
                    mailbox.stop()
    return frames[WARM_UP:], mailbox.posted


def copy_seconds(model: Checkpoint) -> float:
    """Median seconds to copy the network and bring it to the device, as `restore` does for each frame."""
    times = []
    for _ in range(FRAMES):
        start = time.perf_counter()
        channels_last(deepcopy(model.network), pick_device("auto"))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(model: Checkpoint, steps: int) -> list[Row]:
    """Frames per second, latency and loss of one model."""
    frames, posted = live_frames(model, steps)
    last, copying = frames[-1], copy_seconds(model)
    latency = statistics.median(frame.latency_s for frame in frames)
    name = f"{model.card.name}: {SIZE} x {SIZE}, {steps} step(s), {torch.get_num_threads()} threads"
    return [
        Row(what=name, value=f"{last.frames_per_s:.2f} frames/s"),
        Row(what=f"  latency (median), of a camera of {CAMERA_HZ:g} Hz", value=f"{latency:.2f} s"),
        Row(what="  frames dropped for newer ones", value=f"{posted - last.done} of {posted}"),
        Row(what="  copying the network for each frame", value=f"{1000 * copying:.0f} ms, {100 * copying * last.frames_per_s:.0f} %"),
    ]


def stream(core: Any, write: Callable[[np.ndarray], None]) -> tuple[list[float], bool]:
    """Seconds that each writing of a frame took, while the camera streams, and whether its buffer overflowed."""
    from qtpy.QtWidgets import QApplication

    times: list[float] = []
    core.startContinuousSequenceAcquisition(0)
    end = time.monotonic() + CAMERA_S
    while time.monotonic() < end:
        QApplication.processEvents()
        if core.getRemainingImageCount():
            image = core.popNextImage()
            start = time.perf_counter()
            write(image)
            times.append(time.perf_counter() - start)
    core.stopSequenceAcquisition()
    return times, bool(core.isBufferOverflowed())


@contextmanager
def timed_slot() -> Iterator[list[float]]:
    """Seconds that each call of our own slot takes out of the writer's time: copying, comparing, posting."""
    original, times = LayerFeed.post_now, []

    def timed(feed: LayerFeed) -> None:
        start = time.perf_counter()
        original(feed)
        times.append(time.perf_counter() - start)

    LayerFeed.post_now = timed  # type: ignore[method-assign]
    try:
        yield times
    finally:
        LayerFeed.post_now = original  # type: ignore[method-assign]


def measure_camera(model: str) -> list[Row]:
    """The demo camera through napari, without and with a follower."""
    import napari
    from pymmcore_plus import CMMCorePlus
    from qtpy.QtWidgets import QApplication

    from napari_cvdm.widgets.live_widget import LiveWidget

    core = CMMCorePlus()
    core.loadSystemConfiguration()
    core.setROI(0, 0, SIZE, SIZE)
    core.setExposure(1000 / CAMERA_HZ)
    viewer = napari.Viewer(show=True)
    layer = viewer.add_image(core.snap(), name="preview", scale=(0.0626, 0.0626), units=("um", "um"))
    dock = LiveWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Live")
    dock.form.model.set_value(model)
    rows = []
    for following in (False, True):
        if following:
            dock.start()
            source = dock._runs[0].source
        with timed_slot() as slot:
            times, lost = stream(core, partial(setattr, layer, "data"))
        median, worst = 1000 * statistics.median(times), 1000 * float(np.percentile(times, 95))
        what = "followed" if following else "not followed"
        rows.append(Row(what=f"{what}: writing a frame, median (95 %)", value=f"{median:.1f} ms ({worst:.1f} ms)"))
        rows.append(Row(what=f"{what}: frames fetched in {CAMERA_S:g} s", value=str(len(times))))
        rows.append(Row(what=f"{what}: the camera's buffer overflowed", value="yes" if lost else "no", bar="no", met=not lost))
    rows.append(
        Row(
            what="of it our slot (copy, compare, post), median (95 %)",
            value=f"{1000 * statistics.median(slot):.2f} ms ({1000 * float(np.percentile(slot, 95)):.2f} ms)",
        )
    )
    rows.append(Row(what=f"reconstructed by {model}", value=dock.status.text()))
    rows.append(Row(what="frames posted, dropped", value=f"{source.posted}, {source.dropped}"))
    dock.stop("")
    while dock.following:
        QApplication.processEvents()
    viewer.close()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--steps", type=int, default=1)
    given = parser.parse_args()
    models = given.model or ["phase-2shot", "widefield-x2"]
    for chosen in models:
        print_rows("Live", measure(load_model(chosen), given.steps))
    try:
        import mm_test_adapters  # noqa: F401 - its presence is the question
        import pymmcore_plus  # noqa: F401
    except ImportError:
        print("Demo camera: not measured; pip install napari-cvdm[microscope] brings it.")
    else:
        print_rows("Demo camera", measure_camera("widefield-x2"))
