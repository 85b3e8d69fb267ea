"""The newest frame, again and again, through `reconstruct` with few steps."""

import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np

from napari_cvdm.core.device import pick_device
from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Progress, Reconstruction
from napari_cvdm.io import check_pixels, combine_planes
from napari_cvdm.live.sources import FrameSource
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.reconstruction.plan import task_of
from napari_cvdm.reconstruction.reconstruct import reconstruct

PATIENCE_S = 0.2  # how long a thread that follows may sleep before it can be asked to end
RATED_FRAMES = 20
WAITING = Progress(stage="waiting for a frame", done=0, total=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveFrame:
    """One frame, reconstructed.

    Parameters
    ----------
    number : int
        Of the frame among all that came, from 1.
    image : ImageStack
        As measured.
    reconstruction : Reconstruction
        Of one sample: its variance is zero and says nothing.
    latency_s : float
        From the frame's coming to the end of its reconstruction [s].
    frames_per_s : float
        Reconstructions for each second, over the last ones; 0 for the first.
    done, skipped, dropped : int
        Frames that were reconstructed, could not be, and were passed over for a newer one, so far.
    """

    number: int
    image: ImageStack = field(repr=False)
    reconstruction: Reconstruction = field(repr=False)
    latency_s: float
    frames_per_s: float
    done: int
    skipped: int
    dropped: int

    @property
    def mean(self) -> np.ndarray:
        """The reconstruction, (..., Y, X) in `reconstruction.unit`."""
        return self.reconstruction.mean

    @property
    def rate(self) -> np.ndarray:
        """The learned noise-rate map, (..., Y, X), dimensionless."""
        return self.reconstruction.rate

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the reconstruction, in words."""
        return self.reconstruction.provenance.warnings


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFrame:
    """One frame that could not be reconstructed, and what is wrong with it, in one line."""

    number: int  # of the frame among all that came, from 1
    reason: str


Event = Progress | LiveFrame | SkippedFrame


def newest_index(
    shape: tuple[int, ...], axes: str, planes: int
) -> tuple[tuple[int | slice, ...], str]:
    """Where the newest frame lies in an image that may grow along T.

    If a frame has two or more defocus planes, an axis T of that length is not a time axis if no
    other axis can hold the planes.

    The result is an index, the last T and everything along the other axes, and the letters that are
    left.
    """
    holders = [
        letter
        for letter, size in zip(axes, shape, strict=True)
        if size == planes and letter not in "YX"
    ]
    if planes > 1 and holders == ["T"]:
        return (slice(None),) * len(axes), axes
    return tuple(-1 if letter == "T" else slice(None) for letter in axes), axes.replace("T", "")


def follow(
    source: FrameSource, template: ReconstructionRequest, model: Checkpoint
) -> Generator[Event, None, None]:
    """Reconstruct the newest frame until the source is stopped.

    Each frame replaces the image of `template`, and its number of samples becomes one. ``steps=1``
    is the preview: one evaluation, close to the regression mean.

    Yields
    ------
    Progress
        After each step of the sampler, and now and then while no frame comes.
    LiveFrame or SkippedFrame
        For every frame; after one that could not be reconstructed the next one is tried.

    Raises
    ------
    CheckpointError, DeviceError
        A model or a device that no frame could be reconstructed with.
    ImageFileError
        The followed folder is gone.
    """
    planes = count_planes(task_of(model.card).planes, template.defocus_um)
    template = replace(template, samples=1, schedule_points=0, keep_samples=False)
    pick_device(template.device)  # one that is not there ends it at once, not frame after frame
    ends: deque[float] = deque(maxlen=RATED_FRAMES)
    done = skipped = 0
    while not source.stopped:
        item = source.take(PATIENCE_S)
        if item is None:
            yield WAITING
            continue
        try:
            image = _usable(item.content(), planes)
            reconstruction = yield from reconstruct(
                replace(template, image=image), model, check=False
            )
        except ValueError as error:  # a bad frame; any other error ends the run
            skipped += 1
            yield SkippedFrame(number=item.number, reason=str(error))
            continue
        except GeneratorExit:
            source.drop()  # every frame counts as done, skipped or dropped
            raise
        done += 1
        ends.append(time.monotonic())  # a clock that nobody sets
        elapsed = ends[-1] - ends[0]
        yield LiveFrame(
            number=item.number,
            image=image,
            reconstruction=reconstruction,
            latency_s=ends[-1] - item.posted_s,
            frames_per_s=(len(ends) - 1) / elapsed if elapsed > 0 else 0.0,
            done=done,
            skipped=skipped,
            dropped=source.dropped,
        )


def _usable(image: ImageStack, planes: int) -> ImageStack:
    index, axes = newest_index(image.array.shape, image.axes, planes)
    image = replace(image, array=image.array[index], axes=axes)
    if planes > 1 and "P" not in image.axes:
        image = combine_planes(image, count=planes)
    check_pixels(image)
    return image
