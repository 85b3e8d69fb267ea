"""Inversion of a known image formation: the most probable object, and draws from what the data leave open.

Knows forward models and priors; no task, no file and no network.
"""

from napari_cvdm.inversion.background import flatten_background
from napari_cvdm.inversion.evidence import log_evidence, misfit_and_penalty
from napari_cvdm.inversion.gauss_newton import Fit, Solving, fit_object
from napari_cvdm.inversion.local_prior import fit_local_prior
from napari_cvdm.inversion.posterior import draw_around
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
