"""Classical methods that a user can run instead of a model, with the interface of the models.

Each method gives one answer.
"""

from napari_cvdm.baselines.method import Baseline
from napari_cvdm.baselines.phase import PhasePhysics, UsTie, Wotf
from napari_cvdm.baselines.richardson_lucy import RichardsonLucy

_ALL: tuple[Baseline, ...] = (PhasePhysics(), UsTie(), Wotf(), RichardsonLucy())
BASELINES: dict[str, Baseline] = {method.name: method for method in _ALL}
FITTING = {"phase-2shot": "phase-physics", "widefield-x2": "richardson-lucy"}
"""The method without a network that fits each task best, by name."""
FIRST_LOOKS: dict[str, Baseline] = {
    "phase-2shot": UsTie(iterations=1),
    "widefield-x2": RichardsonLucy(iterations=1),
}
"""The fastest method of each task, to look at before a better answer is there."""

__all__ = ["BASELINES", "FIRST_LOOKS", "FITTING", "Baseline"]
