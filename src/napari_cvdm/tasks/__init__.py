"""The tasks, which make the networks' input from a measured image.

The preparation is done once, on the whole image. Training and reconstruction call the same
functions, so the network gets the same numbers in both. Global quantities (the background,
the inversion, the intensity scale) are computed here. Everything after this is local.
"""

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

__all__ = [
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
    "sampled_lines",
]
