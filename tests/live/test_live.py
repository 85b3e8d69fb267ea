"""Following: the newest frame only, every frame accounted for, bad ones named and passed over."""

import os
import shutil
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from napari_cvdm.core.device import DeviceError
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Progress
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import ImageFileError, write_image
from napari_cvdm.live.follow import LiveFrame, SkippedFrame, follow, newest_index
from napari_cvdm.live.sources import FolderWatch, LatestValue
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct

OPTICS = {"wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}


def frame(seed=0, shape=(40, 36), axes="YX"):
    rng = np.random.default_rng(seed)
    return ImageStack(
        array=rng.poisson(100 + 50 * rng.random(shape)).astype(np.float32),
        axes=axes,
        pixel_um=0.1,
        source=f"frame {seed}",
    )


def given(stack):
    return lambda: stack


def template(model, **settings):
    return ReconstructionRequest(
        image=frame(), model=str(model), samples=5, steps=2, device="cpu", tile=64, **settings
    )


def events(source, model, **settings):
    """The messages of following, without the progress.

    The source is stopped as soon as it has no more frames.
    """
    said = []
    for event in follow(source, template(model, **settings), load_model(str(model))):
        if not isinstance(event, Progress):
            said.append(event)
        elif event.stage == "waiting for a frame":
            source.stop()
    return said


def test_a_mailbox_holds_the_newest_and_counts_the_others():
    box = LatestValue()
    for content in "abc":
        box.put(content)
    letter = box.take()
    assert (letter.number, letter.content, box.dropped) == (3, "c", 2)
    assert box.take() is None


def test_nothing_is_lost_or_counted_twice_between_threads():
    box, taken = LatestValue(), []

    def take():
        while not box.stopped:
            letter = box.take(1.0)
            taken.extend([] if letter is None else [letter.number])

    reader = threading.Thread(target=take)
    writers = [
        threading.Thread(target=lambda: [box.put(None) for _ in range(2000)]) for _ in range(3)
    ]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    box.stop()
    reader.join(10)
    assert not reader.is_alive()
    assert taken == sorted(set(taken))
    assert len(taken) + box.dropped == box.posted == 6000


def test_stop_wakes_who_waits_and_nothing_is_taken_in_afterwards():
    box = LatestValue()
    box.put("a")
    box.stop()
    box.put("b")
    assert box.take(60.0) is None
    assert (box.posted, box.dropped) == (1, 1)


@pytest.mark.parametrize(
    ("shape", "axes", "planes", "left", "newest"),
    [
        ((7, 4, 5), "TYX", 1, "YX", 6),
        ((2, 4, 5), "TYX", 1, "YX", 1),
        ((2, 4, 5), "TYX", 2, "TYX", None),
        ((2, 2, 4, 5), "TZYX", 2, "ZYX", 1),
        ((2, 7, 4, 5), "ZTYX", 2, "ZYX", 6),
        ((3, 4, 5), "ZYX", 1, "ZYX", None),
        ((4, 5), "YX", 1, "YX", None),
    ],
)
def test_the_newest_frame_is_the_last_in_time(shape, axes, planes, left, newest):
    array = np.arange(np.prod(shape)).reshape(shape)
    index, letters = newest_index(shape, axes, planes)
    assert letters == left
    expected = array if newest is None else np.take(array, newest, axis=axes.index("T"))
    np.testing.assert_array_equal(array[index], expected)


def test_a_live_frame_is_what_restoring_it_alone_gives(tiny_widefield_model):
    box = LatestValue()
    for seed in range(4):
        box.put(given(frame(seed)))
    (live,) = events(box, tiny_widefield_model)
    alone = drained(
        reconstruct(
            replace(template(tiny_widefield_model), image=frame(3), samples=1),
            load_model(str(tiny_widefield_model)),
        )
    )
    assert live.mean.tobytes() == alone.mean.tobytes()
    assert live.rate.tobytes() == alone.rate.tobytes()
    assert (live.number, live.done, live.dropped, live.frames_per_s) == (4, 1, 3, 0.0)
    assert live.latency_s > 0


def test_a_frame_says_how_it_is_prepared_before_its_samples(tiny_phase_model):
    box = LatestValue()
    box.put(given(frame(1, (2, 48, 40), "PYX")))
    steps = follow(box, template(tiny_phase_model, **OPTICS), load_model(str(tiny_phase_model)))
    said = []
    while not (event := next(steps)).done:
        said.append(event.stage)
    steps.close()
    assert any("noise" in stage for stage in said)
    assert any(stage.startswith("posterior width") for stage in said)
    assert said[-1].startswith("sample 1 of 1")


def test_two_planes_are_found_in_a_growing_time_lapse(tiny_phase_model):
    box, series = LatestValue(), frame(1, (3, 2, 48, 40), "TZYX")
    box.put(given(series))
    (live,) = events(box, tiny_phase_model, **OPTICS)
    assert live.image.axes == "PYX"
    np.testing.assert_array_equal(live.image.array, series.array[-1])
    assert live.mean.shape == (48, 40)


def bad_frames():
    holed = frame(1)
    holed.array[:] = np.nan
    return {
        "NaN": holed,
        "constant": replace(frame(), array=np.ones((40, 36))),
        "planes|plane": frame(2, (3, 40, 36), "PYX"),
    }


@pytest.mark.parametrize("words", bad_frames())
def test_a_bad_frame_is_named_and_passed_over(tiny_widefield_model, words):
    class Reel(LatestValue):
        """Posts the next frame when one is taken, so that each is tried."""

        def take(self, patience_s=0.0):
            if reel:
                self.put(reel.pop(0))
            return super().take(patience_s if reel else 0.0)

    def broken():
        raise ImageFileError("camera 1: the cable is loose; plug it in.")

    reel = [given(frame(0)), given(bad_frames()[words]), broken, given(frame(5))]
    first, second, third, last = events(Reel(), tiny_widefield_model)
    assert [type(one) for one in (first, second, third, last)] == [
        LiveFrame,
        SkippedFrame,
        SkippedFrame,
        LiveFrame,
    ]
    assert any(word in second.reason for word in words.split("|"))
    assert "\n" not in second.reason
    assert "cable" in third.reason
    assert (last.number, last.done, last.skipped, last.dropped) == (4, 2, 2, 0)
    assert last.frames_per_s > 0


@pytest.mark.parametrize("done", [0, 1], ids=["while it is prepared", "while it is sampled"])
def test_a_frame_that_is_given_up_counts_as_dropped(tiny_widefield_model, done):
    box = LatestValue()
    box.put(given(frame()))
    steps = follow(box, template(tiny_widefield_model), load_model(str(tiny_widefield_model)))
    while next(steps).done < done:
        pass
    steps.close()
    assert (box.posted, box.dropped) == (1, 1)


def test_a_device_that_is_not_there_ends_it_at_once(tiny_widefield_model):
    steps = follow(
        LatestValue(),
        replace(template(tiny_widefield_model), device="cuda:99"),
        load_model(str(tiny_widefield_model)),
    )
    with pytest.raises(DeviceError):
        next(steps)


@pytest.fixture
def write(tmp_path):
    """Write a frame into the watched folder, with a time of change that rises with its number."""

    def written(number, name=None):
        path = tmp_path / (name or f"frame{number:03}.npy")
        np.save(path, frame(number).array)
        os.utime(path, ns=(number * 10**9, number * 10**9))
        return path

    return written


def test_a_file_is_handed_out_once_when_two_looks_agree(tmp_path, write):
    old = write(1)
    watch = FolderWatch(tmp_path)
    assert watch.poll() is None
    new = write(2)
    assert [watch.poll() for _ in range(3)] == [None, new, None]
    np.save(old, frame(7).array)
    assert [watch.poll() for _ in range(3)] == [None, old, None]


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path, write):
    watch = FolderWatch(tmp_path)
    whole = write(1).read_bytes()
    (tmp_path / "frame001.npy").unlink()
    path = tmp_path / "slow.npy"
    path.touch()
    assert watch.poll() is None
    for length in range(100, len(whole), 1000):
        path.write_bytes(whole[:length])
        assert watch.poll() is None
    path.write_bytes(whole)
    assert watch.poll() is None
    assert watch.poll() == path


def test_the_newest_of_several_files_is_taken_and_strays_are_passed_by(tmp_path, write):
    watch = FolderWatch(tmp_path, poll_s=0.001)
    for number in (1, 3, 2):
        write(number)
    (tmp_path / "notes.txt").write_text("stray")
    (tmp_path / "frame.npy.part").write_bytes(b"half")
    letter = watch.take(1.0)
    assert letter.content().source == "frame003.npy"
    assert (letter.number, watch.dropped) == (3, 2)


def test_a_folder_is_followed_like_a_camera_and_a_damaged_file_is_passed_over(
    tmp_path, write, tiny_widefield_model
):
    class Film(FolderWatch):
        """Writes the next file when one is taken."""

        def take(self, patience_s):
            if scenes:
                scenes.pop(0)()
            return super().take(0.05 if scenes else 0.02)

    scenes = [
        partial(write, 1),
        partial((tmp_path / "b.tif").write_bytes, b"II*\0 no image"),
        partial(write, 3),
    ]
    first, second, third = events(Film(tmp_path, poll_s=0.001), tiny_widefield_model, pixel_um=0.1)
    assert [type(one) for one in (first, second, third)] == [LiveFrame, SkippedFrame, LiveFrame]
    assert "b.tif" in second.reason
    np.testing.assert_array_equal(third.image.array, frame(3).array)


def test_a_folder_that_vanishes_is_said(tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    watch = FolderWatch(folder)
    shutil.rmtree(folder)
    with pytest.raises(ImageFileError, match="cannot be read"):
        watch.take(1.0)
    with pytest.raises(ImageFileError, match="cannot be read"):
        FolderWatch(folder)


def test_files_that_this_package_writes_are_followed(tmp_path):
    watch = FolderWatch(tmp_path, poll_s=0.001)
    write_image(
        tmp_path / "out.tif", frame(2).array, axes="YX", pixel_um=0.1, unit="counts", name="out"
    )
    read = watch.take(1.0).content()
    np.testing.assert_array_equal(read.array, frame(2).array)
    assert read.pixel_um == pytest.approx(0.1)
