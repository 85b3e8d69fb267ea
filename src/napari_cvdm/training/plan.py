"""How long and how fast to train, and what to begin with."""

from dataclasses import dataclass
from math import isfinite

from napari_cvdm.core.request import RequestError

PARTS = ("all", "denoiser", "schedule")
SMALLEST = {
    "mean_steps": 0,
    "diffusion_steps": 1,
    "batch": 1,
    "patch_px": 8,
    "learning_rate": 0.0,
    "ema_decay": 0.0,
    "pool_fields": 1,
    "fields_per_step": 0.0,
    "fields": 0,
    "foreground": 0.0,
    "blank": 0.0,
    "alpha": 0.0,
    "accumulate": 1,
    "log_every": 1,
    "save_every": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast to train.

    Parameters
    ----------
    mean_steps, diffusion_steps : int
        Optimiser steps of the regression mean, then of denoiser and schedule.
    batch, patch_px : int
        Patches in a batch; their side on the input grid, a multiple of the network's alignment.
    learning_rate : float
        Peak of the one-cycle schedule: a short warm-up, then a cosine to zero, in each of the two
        stages.
    ema_decay : float
        Of the averaged weights that are kept.
    pool_fields : int
        Simulated fields held at a time; patches are cut from them.
    fields_per_step : float
        Fields that a step replaces by new ones.
    fields : int
        Different fields of a simulation, learned from again and again; 0 for new ones without end.
    foreground, blank : float
        Shares of the patches that are cut where there is signal, and from empty fields. A
        simulation makes its own empty fields.
    alpha : float
        Weight of L_gamma (1e-3 in the paper).
    joint : bool
        True trains denoiser and schedule with one loss, as published. False trains the denoiser
        with its own squared error.
    precision : {"fp32", "bf16"}
        Of the convolutions during training. bf16 halves the time of a step where the processor
        supports it.
    accumulate : int
        Number of equal parts in which a batch is evaluated, one after the other, where memory is
        short. The gradients are the same.
    log_every, save_every : int
        Steps between log lines and between checkpoints.
    """

    mean_steps: int
    diffusion_steps: int
    batch: int = 6
    patch_px: int = 128
    learning_rate: float = 1e-3
    ema_decay: float = 0.999
    pool_fields: int = 48
    fields_per_step: float = 0.5
    fields: int = 0
    foreground: float = 0.0
    blank: float = 0.0
    alpha: float = 1e-3
    joint: bool = False
    precision: str = "fp32"
    accumulate: int = 1
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        for name, low in SMALLEST.items():
            value = getattr(self, name)
            if (
                not isinstance(value, int | float)
                or isinstance(value, bool)
                or not isfinite(value)
                or value < low
            ):
                raise RequestError(
                    f"[plan] {name} is {value!r}; a number of at least {low:g} is needed."
                )
        if not self.learning_rate > 0 or not self.ema_decay < 1:
            raise RequestError(
                f"[plan] learning_rate is {self.learning_rate} and ema_decay {self.ema_decay}; "
                "above 0 and below 1 are needed, such as 1e-3 and 0.999."
            )
        if self.foreground > 1 or self.blank > 1:
            raise RequestError(
                f"[plan] foreground is {self.foreground} and blank {self.blank}; shares from 0 to "
                "1 are needed."
            )
        if self.precision not in ("fp32", "bf16"):
            raise RequestError(
                f"[plan] precision is {self.precision!r}; allowed are fp32 and bf16."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialModel:
    """The model that a fine-tuning begins with.

    Parameters
    ----------
    model : str
        A shipped name, or the folder of a checkpoint.
    part : {"all", "denoiser", "schedule"}
        What is trained. All but `all` leave the regression mean as it is.
    """

    model: str
    part: str = "all"

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise RequestError(f"[start] part is {self.part!r}; allowed are {', '.join(PARTS)}.")
