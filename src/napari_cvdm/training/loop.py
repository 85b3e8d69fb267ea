"""The training loop.

The stages follow each other: first the regression mean, then the denoiser with its schedule around
this mean. `train` is a generator of `TrainStep`. Ending the iteration stops the training, and the
state in the folder resumes it.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from napari_cvdm.core.request import TrainRequest
from napari_cvdm.core.result import Progress, Stop
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.training.health import Finding
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.session import Session
from napari_cvdm.training.stages import Stage
from napari_cvdm.training.state import TrainingState, load_state
from napari_cvdm.training.validation import Preview, ScheduleNow, Score, schedule_now


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainStep:
    """A step that is done.

    Parameters
    ----------
    stage : {"mean", "diffusion"}
    step, total : int
        Steps done in this stage, and its steps.
    terms : mapping of str to float
        Loss terms, averaged since the last line of the log; empty between two lines.
    score : Score, optional
        After a look at held-out fields.
    start : Score, optional
        Of the model that a fine-tuning begins with, on the same fields; with every score.
    skipped : int
        Steps of this stage whose gradient could not be used.
    findings : tuple of Finding, optional
        What is wrong, with every line of the log and every look; None between them.
    schedule : ScheduleNow, optional
        Where the schedule is, with every line of the log in the diffusion stage.
    preview : callable
        (number) -> Preview or None: what the network now makes of one of the held-out fields. Call
        it before the next step, in the thread that iterates.
    """

    stage: str
    step: int
    total: int
    terms: dict[str, float] = field(default_factory=dict)
    score: Score | None = None
    start: Score | None = None
    skipped: int = 0
    findings: tuple[Finding, ...] | None = None
    schedule: ScheduleNow | None = None
    preview: Callable[[int], Preview | None] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A training that came to its end: the card of the checkpoint in the folder.

    `score` and `start` are of the new model, and of the model that it began with, on the same
    held-out fields.
    """

    card: ModelCard
    score: Score | None = None
    start: Score | None = None

    @property
    def better(self) -> bool:
        """Whether the new model has a lower CRPS on held-out fields, or cannot be compared."""
        return self.score is None or self.start is None or self.score.crps < self.start.crps

    @property
    def verdict(self) -> str:
        """A sentence that compares the new model's score with that of its start; "" without one."""
        if self.score is None or self.start is None:
            return ""
        rmse, crps = (
            getattr(self.score, name) / getattr(self.start, name) - 1 for name in ("rmse", "crps")
        )
        advice = "go on using the one that you have, or give more pairs, or train for longer"
        result = "better" if self.better else f"NOT better: {advice}"
        return (
            f"On held-out fields, beside {self.card.training['start']['model']}: "
            f"RMSE {rmse:+.1%}, CRPS {crps:+.1%}; {result}."
        )


def train(
    request: TrainRequest, said: Callable[[Progress], object] = lambda progress: None
) -> Generator[TrainStep, Stop | None, Trained]:
    """Train the model of a recipe.

    Parameters
    ----------
    said : callable
        Takes what is being prepared before the first step, in the thread that iterates.

    Yields
    ------
    TrainStep
        After every step. If `Stop.KEEP` is sent, the stage ends there. Then the next stage begins,
        or the model is saved.

    Raises
    ------
    RequestError
        Recipe, device or folder cannot be used.
    TrainingDiverged, CheckpointError
        The gradients were unusable too many times in a row, or the disk is full. The last state in
        the folder is good.
    """
    recipe = read_recipe(request.recipe)
    resumed = load_state(Path(request.out), recipe.fingerprint) if request.resume else None
    # Closed also where the iteration ends early: log, lock and process group.
    with closing(Session(request, recipe, resumed, said)) as session:
        for stage in session.stages:
            # Stages before the one that was left are done.
            if resumed is None or resumed.stage == stage.name:
                yield from run_stage(session, stage, resumed)
                resumed = None
            session.offset += stage.steps
        card, score = session.finish()
        return Trained(card=card, score=score, start=session.start)


def run_stage(
    session: Session, stage: Stage, resumed: TrainingState | None
) -> Generator[TrainStep, Stop | None, None]:
    """Do the steps of a stage that are not done yet, and leave its best weights in the network."""
    run = session.begin(stage, resumed)
    plan, looks, saved = session.recipe.plan, session.recipe.validation, run.done
    # A state that was saved at the end of a stage does no step more.
    is_over = 0 < looks.patience <= run.counts.looks_since_best
    try:
        for parts in () if is_over else session.batches(run.done, stage.steps):
            run.step(parts)
            last = run.done == stage.steps
            terms = run.line() if run.done % plan.log_every == 0 or last else {}
            is_look = looks.every > 0 and (run.done % looks.every == 0 or last)
            score = session.look(run) if is_look else None
            session.write(run, terms, score)
            is_line = bool(terms) or is_look
            rate = session.rate(run) if is_line else None
            if run.done % plan.save_every == 0:
                session.save(run)
                saved = run.done
            message = yield TrainStep(
                stage=stage.name,
                step=run.done,
                total=stage.steps,
                terms=terms,
                score=score,
                start=session.start if is_look else None,
                skipped=run.counts.skipped,
                findings=session.findings(run, score, rate) if is_line else None,
                schedule=schedule_now(rate, session.network.clock)
                if terms and rate is not None
                else None,
                preview=partial(session.preview, run),
            )
            if message is Stop.KEEP or 0 < looks.patience <= run.counts.looks_since_best:
                break
    except GeneratorExit:  # stopped from outside: nothing that was learned is lost
        if run.done > saved:
            session.save(run)
        raise
    if run.done > saved:  # who is killed while the model is written goes on from here
        session.save(run)
    run.finish()
