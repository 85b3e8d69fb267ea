"""The jobs: how a measured image becomes what the networks see, once, on the whole image.

Training and restoring call the same functions, so the network meets the same numbers in both. What must be global (the
background, US-TIE, the intensity scale) is computed here; everything after this is local.
"""

from napari_cvdm.tasks.conditioned import (
    Background,
    FrameReader,
    GlobalStatistics,
    NetworkInput,
    Task,
)
from napari_cvdm.tasks.phase import PhaseTwoShot
from napari_cvdm.tasks.sampled import SampledPlane, sampled_lines
from napari_cvdm.tasks.widefield import Denoise, Fluorescence, WidefieldX2

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
