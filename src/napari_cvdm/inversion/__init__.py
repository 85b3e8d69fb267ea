"""The most probable object and posterior draws under a known image formation.

The package uses forward models and priors, but no task, no file and no network.
"""

from napari_cvdm.inversion.background import flatten_background
from napari_cvdm.inversion.gauss_newton import Fit, Solving, fit_local_prior, fit_object
from napari_cvdm.inversion.posterior import draw_around, log_evidence, misfit_and_penalty
from napari_cvdm.inversion.priors import PhasePrior, PowerLaws

__all__ = [
    "Fit",
    "PhasePrior",
    "PowerLaws",
    "Solving",
    "draw_around",
    "fit_local_prior",
    "fit_object",
    "flatten_background",
    "log_evidence",
    "misfit_and_penalty",
]
