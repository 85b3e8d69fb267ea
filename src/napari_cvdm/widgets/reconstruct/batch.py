"""Files that are reconstructed alike.

The worker's thread reads them. Each file has its own optics where it states them.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cvdm.core.plan import count_planes
from napari_cvdm.core.request import (
    OPTICS,
    ImageStack,
    ReconstructionRequest,
    RequestError,
    roles_of_images,
)
from napari_cvdm.core.result import Progress
from napari_cvdm.io import check_pixels, combine_planes, read_image
from napari_cvdm.io.pairing import ImageEntry
from napari_cvdm.widgets.layers.placement import Placement
from napari_cvdm.widgets.layers.reconstruction import Run

if TYPE_CHECKING:
    from napari_cvdm.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadEntry:
    """An entry that was read.

    Parameters
    ----------
    entry : ImageEntry
    stacks : tuple of ImageStack
        One for each file, to be shown.
    request : ReconstructionRequest
        Of the file, or of all planes together.
    """

    entry: ImageEntry
    stacks: tuple[ImageStack, ...] = field(repr=False)
    request: ReconstructionRequest

    def run(self, places: Sequence[Placement], task: "Task") -> Run:
        """The run of this entry, whose files are the layers that lie at `places`."""
        paths = [str(path) for path in self.entry.files]
        files = dict(zip(roles_of_images(len(paths)), paths, strict=True))
        files |= {"psf": self.request.psf.source} if self.request.psf is not None else {}
        image = replace(self.request.image, source=" + ".join(place.name for place in places))
        place = replace(places[0], files=files, planes=image.planes or 1)
        return Run(
            request=replace(self.request, image=image),
            place=place,
            unit=task.unit,
            upsampling=task.upsampling,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WholeStacks:
    """Files that looked like the planes of one image, but each holds all planes."""

    files: tuple[ImageEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What all files of a queue have in common.

    Parameters
    ----------
    settings : mapping
        By request name, without the image; optics that are None must be said by the files.
    task : Task
        Of the model.
    """

    settings: Mapping[str, Any] = field(repr=False)
    task: "Task"

    @property
    def planes(self) -> int:
        """How many planes one image has."""
        return count_planes(self.task.planes, self.settings.get("defocus_um"))

    def missing(self) -> tuple[str, ...]:
        """Settings that no file can say."""
        return tuple(
            name
            for name in self.task.needed_optics
            if name not in OPTICS and self.settings[name] is None
        )

    def read(self, entry: ImageEntry) -> Generator[Progress, None, ReadEntry | WholeStacks]:
        """Read the files of an entry and make its request; for the worker's thread.

        Raises
        ------
        ImageFileError, RequestError, OpticsError
            What is wrong with the files, or what they do not say.
        """
        stacks = []
        for number, path in enumerate(entry.files):
            yield Progress(stage=f"reading {path.name}", done=number, total=len(entry.files))
            stacks.append(read_image(path))
        # So that a cancel during the last file is heeded.
        yield Progress(stage="reading", done=len(stacks), total=len(stacks))
        if len(stacks) > 1 and all(
            max(self.planes, 2) in stack.array.shape[:-2] for stack in stacks
        ):
            return WholeStacks(files=tuple(ImageEntry(files=(path,)) for path in entry.files))
        if len(stacks) > self.planes:
            raise RequestError(
                f"{entry.name}: these {len(stacks)} files were taken for planes of one image, but "
                f"the model takes {self.task.inputs}. Remove them, and drop them again."
            )
        image = combine_planes(*stacks, count=self.planes) if self.planes > 1 else stacks[0]
        check_pixels(image)
        return ReadEntry(entry=entry, stacks=tuple(stacks), request=self.request_of(image))

    def request_of(self, image: ImageStack) -> ReconstructionRequest:
        """The request for an image; what its file says of optics goes before the settings.

        Raises
        ------
        RequestError, OpticsError
            Optics that neither the file nor the settings say, or that are not allowed.
        """
        said = [
            name
            for name in OPTICS
            if name in image.metadata or (name == "pixel_um" and image.pixel_um is not None)
        ]
        request = ReconstructionRequest(image=image, **{**self.settings, **dict.fromkeys(said)})
        unknown = [
            name
            for name in self.task.needed_optics
            if name in OPTICS and request.known_optics(name) is None
        ]
        if unknown:
            names = ", ".join(unknown)
            raise RequestError(
                f"{image.source}: the file does not say {names}; type it in above (what came from "
                "another layer does not count), and press Start."
            )
        return request
