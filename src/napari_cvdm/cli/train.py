"""``napari-cvdm train``: from a recipe to a checkpoint, with the loss terms and the time left."""

import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from napari_cvdm.cli import say_done
from napari_cvdm.cli.progress import bar
from napari_cvdm.core.request import RequestError, TrainRequest
from napari_cvdm.training.loop import Trained, TrainStep, train
from napari_cvdm.training.parallel import is_first_process
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.state import STATE, is_without_state, kept_if_resumable, load_state


def run_train(arguments: Namespace) -> None:
    """Carry out the command; an interruption says how to resume, where there is something to."""
    request = TrainRequest(
        recipe=arguments.recipe,
        out=arguments.out,
        resume=arguments.resume,
        device=getattr(arguments, "device", "auto"),
    )
    if not is_first_process():  # torchrun started it: the first process asks and speaks for all
        with closing(train(request)) as steps:
            for _ in steps:
                pass
        return
    out = Path(request.out)
    check_folder(out, request.resume)
    recipe = read_recipe(request.recipe)
    # A kill may come between the model and its state.
    if request.resume and load_state(out, recipe.fingerprint) is None:
        print(
            f"napari-cvdm: warning: {out} has no {STATE} that was saved in full, so the training "
            "begins again.",
            file=sys.stderr,
        )
    try:
        with kept_if_resumable(out):
            trained = _relay(request, recipe.name)
    except KeyboardInterrupt:
        if not (out / STATE).exists():
            raise
        raise KeyboardInterrupt(f"{out} keeps the last checkpoint; go on with --resume.") from None
    say_done(
        f"{arguments.out}: the model {recipe.name}; use it with --model {arguments.out}"
        + (f"\n{trained.verdict}" if trained.verdict else "")
    )


def check_folder(out: Path, resume: bool) -> None:
    """RequestError where a training would overwrite something, or has nothing to resume from."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; choose the name of a folder.")
    filled = out.is_dir() and any(out.iterdir())
    if filled and not resume:
        raise RequestError(
            f"{out} is not empty; choose another folder, or say --resume to continue the training "
            "in it."
        )
    if resume and not (out / STATE).exists() and not is_without_state(out):
        raise RequestError(
            f"{out} has no {STATE} to resume from; leave out --resume to start anew."
        )


def _relay(request: TrainRequest, name: str) -> Trained:
    """Print a line for every reported step, under a bar with the time left in the stage."""
    stage, shown = "", None
    warned = set[str]()  # each failure is said once
    with closing(train(request)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                trained: Trained = end.value
                break
            if shown is None or step.stage != stage:
                if shown is not None:
                    shown.close()
                stage = step.stage
                shown = bar(f"{name}, {stage}", total=step.total, initial=step.step)
            shown.update(step.step - shown.n)
            if step.terms or step.score is not None:
                tqdm.write(line_of(step, shown))  # print would break the bar
            for finding in step.findings or ():
                if finding.name not in warned:
                    warned.add(finding.name)
                    threshold = f"threshold {finding.threshold:.3g}"
                    tqdm.write(
                        f"{finding.name} ({finding.value:.3g}, {threshold}): {finding.advice}"
                    )
    if shown is not None:
        shown.close()
    return trained


def line_of(step: TrainStep, shown: Any) -> str:
    """One line of the log: stage, step, loss terms, time left by the pace of the bar."""
    terms = "  ".join(f"{name} {value:.4g}" for name, value in step.terms.items())
    # Of the steps of this run: those before it were resumed.
    pace = (shown.n - shown.initial) / max(shown.format_dict["elapsed"], 1e-9)
    if step.score is not None:
        terms += (
            f"  held out: RMSE {step.score.rmse:.4g}  CRPS {step.score.crps:.4g}  spread/error "
            f"{step.score.spread_ratio:.2f}"
        )
    if step.skipped:
        terms += f"  skipped {step.skipped}"
    left = f"  left {tqdm.format_interval((step.total - step.step) / pace)}" if pace > 0 else ""
    return f"{step.stage} {step.step}/{step.total}  {terms}{left}"
