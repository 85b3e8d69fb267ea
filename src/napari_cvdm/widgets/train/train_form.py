"""The settings of a training as a form: from which model, with which pairs, in how much time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.common.choices import ModelChoice
from napari_cvdm.widgets.common.fields import (
    LabelledRows,
    OptionalNumber,
    collapsible,
    fill_layout,
    whole_number,
    word_choice,
)
from napari_cvdm.widgets.common.preferences import own_models, preferred
from napari_cvdm.widgets.train.pair_source import PairSource

if TYPE_CHECKING:
    from napari_cvdm.training.fine_tuning import FineTuning

RUNS = "runs"
OWN_STEPS = "as many steps as below"
FORBIDDEN = set('/\\:*?"<>|')  # in names of files on Windows
COUNTS = {  # lowest, highest, default
    "mean_steps": (0, 10_000_000, 1000),
    "diffusion_steps": (1, 10_000_000, 1000),
    "batch": (1, 4096, 5),
    "patch_px": (8, 4096, 72),
    "held-out fields": (1, 1000, 4),
    "patience": (0, 1000, 6),
    "seed": (0, 2**31 - 1, 0),
}
NUMBERS = {
    "learning_rate": 2e-4,
    "alpha": 1e-3,
    "foreground": 0.5,
    "blank": 0.1,
    "held-out share": 0.2,
}
HELP = {
    "start from": (
        "The model to begin with. The new one is offered only if it is better on fields that "
        "neither has learned from."
    ),
    "name": (
        "Of the new model: it names the folder of the run, and the model in the list of "
        "Reconstruct."
    ),
    "train for": (
        "How long. A few real steps are timed first, and as many steps are planned as fit into "
        "it.\n"
        "It may be stopped at any time, gone on with later, or finished early."
    ),
    "part": (
        "all: mean, denoiser and schedule. denoiser or schedule: the other parts stay as they are."
    ),
    "mean_steps": "Steps of the regression mean. They count only when 'train for' says so.",
    "diffusion_steps": "Steps of denoiser and schedule. They count only when 'train for' says so.",
    "batch": "Patches in a step. Fewer need less memory.",
    "patch_px": "Side of a patch in pixels of the measured image.",
    "learning_rate": (
        "Highest learning rate. A quarter of the one that the model was made with is a good start."
    ),
    "alpha": "Weight of L_gamma, which keeps the schedule smooth: 1e-3 in the paper.",
    "foreground": "Share of the patches that lie where there is something.",
    "blank": (
        "Share of the patches that are empty fields with the camera's noise: they teach to invent "
        "nothing."
    ),
    "held-out fields": "Simulated fields that are never learned from, to judge the training.",
    "held-out share": (
        "Share of the measured fields of view that are never learned from, to judge the training."
    ),
    "patience": (
        "Looks at held-out fields without a better score after which a stage ends; 0 for never."
    ),
    "seed": "Chooses data and noise. The same recipe gives the same model on the CPU.",
    "precision": "bf16 halves the time of a step on processors that have it; fp32 is exact on all.",
    "device": "Where to train; auto takes the fastest that is there.",
}


class TrainForm(QWidget):
    """Model, pairs, time, and an advanced page under the names of the recipe."""

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        # They bring torch, which may fail to load: the dock asks `engine_problem` first.
        from napari_cvdm.core.device import available_devices
        from napari_cvdm.training.fine_tuning import PRESETS_MIN
        from napari_cvdm.training.recipe import PARTS

        super().__init__()
        self._presets, self._proposed = PRESETS_MIN, ""
        self.model = ModelChoice()
        self.name = QLineEdit()
        self.source = PairSource(viewer)
        self.time = word_choice((*PRESETS_MIN, OWN_STEPS))
        self.part = word_choice(PARTS)
        self.counts = {name: whole_number(low, high) for name, (low, high, _) in COUNTS.items()}
        self.numbers = {name: OptionalNumber(name) for name in NUMBERS}
        self.words = {
            "precision": word_choice(("bf16", "fp32")),
            "device": word_choice(("auto", *available_devices())),
        }
        for name, (_, _, default) in COUNTS.items():
            self.counts[name].setValue(default)
        for name, number in NUMBERS.items():
            self.numbers[name].set_value(number)
        self.words["device"].setCurrentText(preferred("device"))
        self._lay_out()
        self.model.changed.connect(self._on_model)
        self.source.changed.connect(self._on_source)
        for signal in (
            *(field.textChanged for field in (self.name, *self.numbers.values())),
            *(box.valueChanged for box in self.counts.values()),
            *(box.currentIndexChanged for box in (self.time, self.part, *self.words.values())),
        ):
            signal.connect(self.changed)
        self._on_model()

    def _lay_out(self) -> None:
        advanced = QWidget()
        self._advanced = LabelledRows({**self.counts, **self.numbers, **self.words}, HELP)
        advanced.setLayout(self._advanced)
        purpose = "Settings of the recipe that seldom need a change."
        self.more = collapsible("Advanced", advanced, purpose)
        fill_layout(
            QVBoxLayout(self),
            LabelledRows({"start from": self.model, "name": self.name}, HELP),
            self.source,
            LabelledRows({"train for": self.time, "part": self.part}, HELP),
            self.more,
        ).addStretch(1)

    def _on_model(self) -> None:
        """Take over how the model was made, and propose a name that is free."""
        from napari_cvdm.reconstruction.plan import task_of
        from napari_cvdm.training.fine_tuning import plan_of

        card = self.model.card()
        self.source.set_task(None if card is None else task_of(card))
        if card is not None:
            for name, value in plan_of(card).items():
                if name in self.counts:
                    self.counts[name].setValue(value)
                elif name in self.numbers:
                    self.numbers[name].set_value(float(value))
                elif name in self.words:
                    self.words[name].setCurrentText(value)
            self.propose_name()
        self.changed.emit()

    def propose_name(self) -> None:
        """Propose a name for the new model that neither a model nor a run has.

        A name that the user has typed stays while it is free.
        """
        name, card = self.name.text().strip(), self.model.card()
        if name and name != self._proposed and not _is_taken(name):
            return
        number, stem = 1, "model" if card is None else f"{card.name}-mine"
        while _is_taken(f"{stem}-{number}"):
            number += 1
        self._proposed = f"{stem}-{number}"
        self.name.setText(self._proposed)

    def _on_source(self) -> None:
        # Simulated fields are made for it, as many as asked for; of measured ones it is a share.
        self._advanced.show_row("held-out fields", not self.source.measured)
        self._advanced.show_row("held-out share", self.source.measured)
        self.changed.emit()

    def missing(self) -> tuple[str, ...]:
        """What must still be chosen or filled in, by name."""
        found = {"a model to start from": self.model.value(), "a name": self.name.text().strip()}
        return (*(name for name, value in found.items() if not value), *self.source.missing())

    @property
    def run_folder(self) -> Path:
        """Where the run will be; RequestError if no folder may have the name, or it is taken."""
        name = self.name.text().strip()
        # The folder of the runs lies among the models, and a name with a dot would hide.
        if set(name) & FORBIDDEN or name.startswith(".") or name == RUNS:
            raise RequestError(
                f"name is {name!r}; letters, digits, spaces and - _ . are allowed, such as "
                "my-microscope."
            )
        if _is_taken(name):
            raise RequestError(
                f"name is {name!r}, and a model or a run has that name already; choose another one."
            )
        return own_models() / RUNS / name

    def value(self) -> "FineTuning":
        """What is to be trained.

        RequestError, OpticsError, ImageFileError and CheckpointError say what is missing or not
        allowed.
        """
        from napari_cvdm.training.fine_tuning import FineTuning, fine_tuning_recipe
        from napari_cvdm.training.recipe import InitialModel
        from napari_cvdm.training.validation import Validation

        model, card = self.model.value(), self.model.card()
        if self.missing() or model is None or card is None:
            raise RequestError(f"Needed before a start: {', '.join(self.missing())}.")
        source, layers = self.source.value()
        recipe = fine_tuning_recipe(
            name=self.name.text().strip(),
            start=InitialModel(model=model, part=self.part.currentText()),
            card=card,
            source=source,
            validation=Validation(
                every=1,  # set anew when the pace is measured
                fields=self.counts["held-out fields"].value(),
                share=self._number("held-out share"),
                patience=self.counts["patience"].value(),
            ),
            seed=self.counts["seed"].value(),
            **self._plan(),
        )
        return FineTuning(
            recipe=recipe,
            folder=self.run_folder,
            minutes=self._presets.get(self.time.currentText()),
            layers=layers,
            device=self.words["device"].currentText(),
        )

    def _plan(self) -> dict[str, Any]:
        counts = ("mean_steps", "diffusion_steps", "batch", "patch_px")
        numbers = ("learning_rate", "alpha", "foreground", "blank")
        plan: dict[str, Any] = {
            **{name: self.counts[name].value() for name in counts},
            **{name: self._number(name) for name in numbers},
            "precision": self.words["precision"].currentText(),
            "log_every": 10,
            "save_every": 100,  # steps: what a power cut costs at most
        }
        if not self.source.measured:  # a simulation has its own empty fields
            plan |= {"foreground": 0.0, "blank": 0.0}
        return plan

    def _number(self, name: str) -> float:
        value = self.numbers[name].value()
        return NUMBERS[name] if value is None else value


def _is_taken(name: str) -> bool:
    # A run that was stopped, or whose model is not better, is among the runs alone.
    return (own_models() / name).exists() or (own_models() / RUNS / name).exists()
