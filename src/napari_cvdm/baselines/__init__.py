"""What a user would run instead of a model: classical methods that give one answer, behind the interface of the models.

A name that `RestoreRequest.model` takes is a shipped model, a checkpoint folder, or one of `BASELINES`; `load_method` finds what
it names and `reconstruct` runs it.
"""

from napari_cvdm.baselines.choice import BASELINES, FITTING, card_of_method, load_method, reconstruct
from napari_cvdm.baselines.method import Baseline
from napari_cvdm.baselines.run import reconstruct_classically

__all__ = ["BASELINES", "FITTING", "Baseline", "card_of_method", "load_method", "reconstruct", "reconstruct_classically"]
