"""From a name to what it names: a model or a classical method."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_cvdm.baselines import BASELINES, Baseline
from napari_cvdm.core.request import RequestError
from napari_cvdm.models.checkpoint import Checkpoint, ModelCard, read_card
from napari_cvdm.models.registry import UnknownModelError, load_model, model_folder
from napari_cvdm.tasks import TASKS, Task

if TYPE_CHECKING:
    from napari_cvdm.checks.forward_check import MakeCheckModel
    from napari_cvdm.training.sources import MakeField


def baseline_named(name: str) -> Baseline | None:
    """The classical method of a name, perhaps with a parameter (``us-tie:1e-5``), or else None.

    RequestError for a parameter that is no number, or out of its range.
    """
    word, colon, value = name.partition(":")
    method = BASELINES.get(word)
    if method is None or not colon:
        return method
    kind = type(getattr(method, method.parameter))  # iterations and draws are whole numbers
    try:
        number = kind(value)
    except ValueError:
        example = f"{word}:{getattr(method, method.parameter)}"
        raise RequestError(
            f"model {name!r}: {value!r} is no {method.parameter}; give a number, for example "
            f"{example}."
        ) from None
    return replace(method, **{method.parameter: number})


def register_task(
    task: Task,
    ranges: type[Any],
    make_field: "MakeField",
    *,
    intensity: str,
    check_model: "MakeCheckModel | None" = None,
) -> None:
    """Register a task for recipes, training, reconstruction and the forward check.

    It holds for this process only: import the module of the task before each run.

    Parameters
    ----------
    task : Task
        What the networks see of a measured image.
    ranges : type
        ``[simulation]`` of a recipe: a dataclass with the task's name as `task`, and `smallest_px`.
    make_field : callable
        (ranges, seed, draw) -> TrainingField. The object is random if `draw` is None, else
        ``draw(rng, size, pixel_um)``, for example that of a blank field.
    intensity : str
        For the card: what is made of the counts, in words.
    check_model : callable, optional
        (prepared input, plan, card) -> ForwardCheckModel; no check without it.

    Raises
    ------
    RequestError
        There is a task of that name.
    """
    # Training is not needed to reconstruct, and costs an import.
    from napari_cvdm.checks.forward_check import CHECK_MODELS
    from napari_cvdm.simulate.ranges import RANGES
    from napari_cvdm.training.card import INTENSITIES
    from napari_cvdm.training.sources import FIELDS

    if task.name in TASKS:
        raise RequestError(f"there is a task {task.name} already; choose another name.")
    TASKS[task.name] = task
    RANGES[task.name], FIELDS[task.name], INTENSITIES[task.name] = ranges, make_field, intensity
    if check_model is not None:
        CHECK_MODELS[task.name] = check_model


def _with_baselines(error: UnknownModelError) -> UnknownModelError:
    return UnknownModelError(f"{error} Classical baselines are {', '.join(BASELINES)}.")


def load_method(name_or_path: str) -> Checkpoint | Baseline:
    """A model or a classical method; both have a `card`.

    It takes a name of `BASELINES`, with its parameter after a colon if needed, or what `load_model`
    takes.

    Raises
    ------
    CheckpointError, RequestError
        Unknown name (the message lists models and baselines), a checkpoint that cannot be read, or
        a parameter that is not allowed.
    """
    try:
        return baseline_named(name_or_path) or load_model(name_or_path)
    except UnknownModelError as error:
        raise _with_baselines(error) from None


def card_of_method(name_or_path: str) -> ModelCard:
    """The card alone, without loading weights; errors as of `load_method`."""
    method = baseline_named(name_or_path)
    try:
        return read_card(model_folder(name_or_path)) if method is None else method.card
    except UnknownModelError as error:
        raise _with_baselines(error) from None
