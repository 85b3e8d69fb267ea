"""The tasks, which make the networks' input from a measured image.

The preparation is done once, on the whole image. Training and reconstruction call the same
functions, so the network gets the same numbers in both. Global quantities (the background,
the inversion, the intensity scale) are computed here. Everything after this is local.
"""

from importlib.metadata import entry_points

from napari_cvdm.core.request import RequestError
from napari_cvdm.tasks.fluorescence import Denoise, Fluorescence, WidefieldX2
from napari_cvdm.tasks.phase import PhaseTwoShot
from napari_cvdm.tasks.task import (
    Background,
    FrameReader,
    GlobalStatistics,
    NetworkInput,
    SampledPlane,
    Task,
    sampled_lines,
)

FLUORESCENCE: dict[str, Fluorescence] = {task.name: task for task in (WidefieldX2(), Denoise())}
TASKS: dict[str, Task] = {"phase-2shot": PhaseTwoShot(), **FLUORESCENCE}
ENTRY_POINTS = "napari_cvdm.tasks"


def find_task(name: str) -> Task | None:
    """The task of a name, shipped, registered, or of a package that is installed.

    A package names the module that registers its task in the entry points `napari_cvdm.tasks`.
    The module is imported when the task is asked for.

    Returns
    -------
    Task or None
        None where nothing has a task of that name.

    Raises
    ------
    RequestError
        The module of the task cannot be imported.
    """
    if name not in TASKS:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            try:
                entry.load()
            except Exception as error:  # foreign code fails in any way, and has to be named
                raise RequestError(
                    f"task {name!r}: {entry.value} cannot be imported ({error}). Update or remove "
                    "the package that it belongs to."
                ) from error
    return TASKS.get(name)


__all__ = [
    "ENTRY_POINTS",
    "FLUORESCENCE",
    "TASKS",
    "Background",
    "Denoise",
    "Fluorescence",
    "FrameReader",
    "GlobalStatistics",
    "NetworkInput",
    "PhaseTwoShot",
    "SampledPlane",
    "Task",
    "WidefieldX2",
    "find_task",
    "sampled_lines",
]
