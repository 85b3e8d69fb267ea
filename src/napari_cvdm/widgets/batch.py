"""Files that are reconstructed alike: read in the worker's thread, each with its own optics where it says them."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_cvdm.image_files import check_pixels, combine_planes, read_image
from napari_cvdm.image_files.dropped import ImageEntry
from napari_cvdm.request import OPTICS, ImageStack, RequestError, RestoreRequest
from napari_cvdm.result import Progress
from napari_cvdm.widgets.placement import Placement
from napari_cvdm.widgets.reconstruction import Run

if TYPE_CHECKING:
    from napari_cvdm.tasks import Task

ROLES = ("image", "image2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadEntry:
    """An entry that was read.

    Parameters
    ----------
    entry : ImageEntry
    stacks : tuple of ImageStack
        One for each file, to be shown.
    request : RestoreRequest
        Of the file, or of both planes together.
    """

    entry: ImageEntry
    stacks: tuple[ImageStack, ...] = field(repr=False)
    request: RestoreRequest

    def run(self, places: Sequence[Placement], task: "Task") -> Run:
        """The run of this entry, whose files are the layers that lie at `places`."""
        files = dict(zip(ROLES, (str(path) for path in self.entry.files), strict=False))
        image = replace(self.request.image, source=" + ".join(place.name for place in places))
        return Run(request=replace(self.request, image=image), place=replace(places[0], files=files), unit=task.unit, upsampling=task.upsampling)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwoStacks:
    """Two files that looked like the planes of one image, but each holds two planes."""

    files: tuple[ImageEntry, ImageEntry]


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

    def missing(self) -> tuple[str, ...]:
        """Settings that no file can say."""
        return tuple(name for name in self.task.needed_optics if name not in OPTICS and self.settings[name] is None)

    def read(self, entry: ImageEntry) -> Generator[Progress, None, ReadEntry | TwoStacks]:
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
        yield Progress(stage="reading", done=len(stacks), total=len(stacks))  # so that a cancel during the last file is heeded
        if len(stacks) == 2 and all(2 in stack.array.shape[:-2] for stack in stacks):
            return TwoStacks(files=(ImageEntry(files=entry.files[:1]), ImageEntry(files=entry.files[1:])))
        if len(stacks) > self.task.planes:
            raise RequestError(f"{entry.name}: these two were taken for planes, but the model takes {self.task.inputs}. Remove them, and drop them again.")
        image = combine_planes(*stacks) if self.task.planes == 2 else stacks[0]
        check_pixels(image)
        return ReadEntry(entry=entry, stacks=tuple(stacks), request=self.request_of(image))

    def request_of(self, image: ImageStack) -> RestoreRequest:
        """The request for an image; what its file says of optics goes before the settings.

        Raises
        ------
        RequestError, OpticsError
            Optics that neither the file nor the settings say, or that are not allowed.
        """
        said = [name for name in OPTICS if name in image.metadata or (name == "pixel_um" and image.pixel_um is not None)]
        request = RestoreRequest(image=image, **{**self.settings, **dict.fromkeys(said)})
        unknown = [name for name in self.task.needed_optics if name in OPTICS and request.known_optics(name) is None]
        if unknown:
            names = ", ".join(unknown)
            raise RequestError(
                f"{image.source}: the file does not say {names}; type it in above (what came from another layer does not count), and press Start."
            )
        return request
