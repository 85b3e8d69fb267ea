"""What the Reconstruct dock hands to the worker's thread, and what comes back."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import Progress, Reconstruction, Stop
from napari_cvdm.widgets.layers.placement import Placement

Working = Generator[Progress, Stop | None, Reconstruction]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What is run, and where its result will lie."""

    request: ReconstructionRequest
    place: Placement  # of the measured image
    unit: str  # of the result
    upsampling: int  # output pixels for one input pixel along Y and X
    # A result that this goes on from.
    earlier: Reconstruction | None = field(default=None, repr=False)

    def going_on(self, reconstruction: Reconstruction, more: int) -> "Run":
        """The run that adds samples to a result of this one.

        The emptiest frame gets `more` samples, and every frame has at least as many as the fullest
        had.
        """
        samples = max(int(reconstruction.counts.max()), int(reconstruction.counts.min()) + more)
        return replace(self, request=replace(self.request, samples=samples), earlier=reconstruction)

    def work(self) -> Working:
        """Load the model, check the pixels, reconstruct; for the worker's thread."""
        from napari_cvdm.io import check_pixels
        from napari_cvdm.reconstruction.methods import load_method
        from napari_cvdm.reconstruction.reconstruct import reconstruct

        yield Progress(stage="loading the model", done=0, total=steps_of(self.request))
        check_pixels(self.request.image)
        return (yield from reconstruct(self.request, load_method(self.request.model), self.earlier))


def steps_of(request: ReconstructionRequest) -> int:
    """Steps of the sampler that a request asks for, over all its samples and frames."""
    return request.samples * request.steps * prod(request.image.loop_shape)


def preview_of(
    request: ReconstructionRequest, position: Mapping[str, int], region: tuple[int, int, int, int]
) -> ReconstructionRequest:
    """The request for a quick look: one frame, a part of it, one evaluation of the network.

    Parameters
    ----------
    position : mapping of str to int
        Where the viewer's sliders stand, by axis letter; axes without a slider (colours) are kept.
    region : tuple of int
        (top, bottom, left, right) in pixels of the image.
    """
    image = request.image
    looped = {axis for axis in position if axis not in "PYX"}
    index = tuple(position[axis] if axis in looped else slice(None) for axis in image.axes)
    axes = "".join(axis for axis in image.axes if axis not in looped)
    frame = replace(image, array=image.array[index], axes=axes)
    return replace(
        request,
        image=frame,
        region=region,
        samples=1,
        steps=1,
        sampler="sde-2m",
        keep_samples=False,
        schedule_points=0,
    )


def engine_problem() -> str:
    """Why torch cannot be loaded, in words; "" when it can."""
    try:
        import torch  # noqa: F401 - loading it is the test
    except OSError as error:
        # On Windows its libraries fail to load after those of some Qt versions.
        return (
            f'PyTorch cannot be loaded beside Qt ({error}). Start napari with: python -c "import '
            'torch, napari; napari.run()", or install PyTorch again.'
        )
    return ""
