"""The pairs and the sampling that the arguments of evaluate, benchmark and calibrate ask for."""

from argparse import Namespace
from typing import Any

from napari_cvdm.baselines import Baseline
from napari_cvdm.core.request import OPTICS
from napari_cvdm.evaluation.pair_sets import PairSelection, PairSet, Sampling, pair_set
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard
from napari_cvdm.models.registry import shipped_models


def set_of(
    arguments: Namespace, name: str, card: ModelCard, first_seed: int, count: int | None = None
) -> PairSet:
    """A named set, or that of a folder.

    Parameters
    ----------
    arguments : Namespace
        With fields, seed, register and optics.
    name : str
    card : ModelCard
    first_seed : int
        EVALUATION_SEED or CALIBRATION_SEED.
    count : int, optional
        Instead of the arguments' fields.

    Raises
    ------
    RequestError
        There is no such set.
    """
    choice = PairSelection(
        fields=arguments.fields if count is None else count,
        first_seed=first_seed + arguments.seed,
        field_px=arguments.field_px,
        optics=optics_of(arguments),
        register=arguments.register,
    )
    return pair_set(name, card, choice)


def pairs_card(method: Checkpoint | Baseline) -> ModelCard:
    """The card that says which fields to simulate.

    A model has its own. A classical method has no training, and takes the card of the shipped model
    of its task.
    """
    if not isinstance(method, Baseline):
        return method.card
    return next(card for _, card in shipped_models() if card.task == method.task)


def optics_of(arguments: Namespace) -> dict[str, Any]:
    """The optics that were given."""
    given = {
        name: getattr(arguments, name)
        for name in (*OPTICS, "defocus_um", "condenser_na")
        if hasattr(arguments, name)
    }
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }


def sampling_of(arguments: Namespace) -> Sampling:
    """How every posterior is sampled."""
    return Sampling(
        samples=arguments.samples,
        steps=arguments.steps,
        sampler=arguments.sampler,
        device=arguments.device,
    )
