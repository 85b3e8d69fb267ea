"""Run every benchmark and write docs/evidence.md: `python -m paper.evidence`.

`--small` only shows, in seconds, that each of them runs.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.utils import collect_env

from napari_cvdm.models.checkpoint import Checkpoint, write_card
from napari_cvdm.models.registry import SHIPPED, load_model
from paper import (
    blank,
    classical,
    exactness,
    hl60,
    microlens,
    official_setting,
    speed,
    spread,
    stand_ins,
    tsim_er,
)
from paper.measure import DATA, Row, print_rows

HL60_NOTE = (
    "Most of US-TIE's squared error lies in its slowest waves, where photon noise grows with "
    "the fourth power of the period.\n"
    "Nothing in the two planes says more about them; only the flatness of the empty medium "
    "does, and it is used (see [Symbols](symbols.md)). On this\n"
    "cell, which fills most of its field, that is not enough for the bar. The last rows say "
    "why: they give US-TIE knowledge that no measurement has,\n"
    "taken from the truth, and follow the drift from the medium into the cell by the best "
    "linear estimate for photon noise. Told where the medium is,\n"
    "US-TIE comes to 0.75 of its own error; told the medium's exact phase, to about 0.5: the "
    "bar asks for what this oracle reaches.\n"
    "No training saw these frames, but the constant that ties slow waves to US-TIE and the "
    "tolerances for medium were chosen with them, and with\n"
    "simulated cells, in view.\n"
)
TSIM_NOTE = (
    "This SIM reconstruction puts its pixel 2i on pixel i of the widefield image; here, and "
    "in napari, both grids have one centre. Half a pixel\n"
    "of the fine grid costs the sharper image more than the blurred one, so both comparisons "
    "are shown. The resolutions match without any blur.\n"
)
OFFICIAL_NOTE = (
    "US-TIE gets the regularisation that suits each field best, chosen with the truth in "
    "hand, which nobody has who measures. Still, on\n"
    "objects that fill the field and are like nothing in its training the model is no better "
    "than it; the paper's halving of the error was for a model\n"
    "trained in this one setting. Where the field is part of a larger one, what crosses the "
    "frame disturbs both, and the model, which removes no slow\n"
    "waves, more.\n"
)
CLASSICAL_NOTE = (
    "The optics are assumed (NA 1.4, 0.52 um, index 1.518), since the data do not record "
    "them. Richardson-Lucy, stopped where the residual\n"
    "is down to the camera's noise, gains as much over cubic upsampling as the model does on "
    "the registered grids.\n"
)
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
HEAD = (
    "# Evidence\n"
    "\n"
    "Every figure on this page was printed by a command in the repository; `python -m "
    "paper.evidence` runs them all and\n"
    "writes the page. The real images are not part of the repository (their sources and "
    "licences are with the data); the models\n"
    "never saw them. A bar that was missed says so.\n"
    "\n"
)


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    lines = ["| measured | value | bar | |", "|---|---|---|---|"]
    verdicts = {None: "", True: "met", False: "**missed**"}
    return (
        "\n".join(
            [
                *lines,
                *(
                    f"| {row.what} | {row.value} | {row.bar} | {verdicts[row.met]} |"
                    for row in rows
                ),
            ]
        )
        + "\n"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One measurement.

    Parameters
    ----------
    title : str
    module : str
        Prints it alone.
    measure : callable
        () -> rows.
    small : callable
        The same on small images, and simulated ones where `measure` reads real ones, in seconds:
        shows that the command runs, and nothing else.
    model : str, optional
        That it is about; None: all or none.
    note : str
        What to know of it.
    """

    title: str
    module: str
    measure: Callable[[], list[Row]]
    small: Callable[[], list[Row]]
    model: str | None = None
    note: str = ""


def sections(phase: Checkpoint, widefield: Checkpoint) -> list[Section]:
    """Everything that is measured, in the order of the page."""
    return [
        Section(
            title="Exactness",
            module="exactness",
            measure=exactness.measure,
            small=lambda: exactness.measure(20_000),
        ),
        *phase_sections(phase),
        *widefield_sections(widefield),
        Section(
            title="Spread beside error: the sample images",
            module="spread",
            measure=lambda: spread.measure(phase, widefield),
            small=lambda: spread.measure(
                phase, widefield, spread.Plan(samples=2, side=stand_ins.SIDE)
            ),
        ),
        Section(
            title="Speed",
            module="speed",
            measure=lambda: [
                row
                for model in (phase, widefield)
                for row in speed.one_rows(model, speed.SIZE, speed.ROUNDS)
            ],
            small=lambda: [
                row
                for model in (phase, widefield)
                for row in speed.one_rows(model, stand_ins.SIDE, 1)
            ],
        ),
    ]


def phase_sections(model: Checkpoint) -> list[Section]:
    """Of the phase model."""
    return [
        Section(
            title="Phase: HL60 cell, +-1 um, 1e4 photons per pixel, piston removed",
            module="hl60",
            measure=lambda: hl60.measure(model, hl60.measured_phases()),
            small=lambda: hl60.measure(model, stand_ins.phases(), samples=2),
            model="phase-2shot",
            note=HL60_NOTE,
        ),
        Section(
            title="Phase: the setting of the official code, on photographs",
            module="official_setting",
            measure=lambda: official_setting.measure(model),
            small=lambda: official_setting.measure(
                model, official_setting.PHOTOGRAPHS[:2], stand_ins.SIDE
            ),
            model="phase-2shot",
            note=OFFICIAL_NOTE,
        ),
        Section(
            title="Phase: a real microlens array",
            module="microlens",
            measure=lambda: microlens.measure(model, *microlens.measured_planes()),
            small=lambda: microlens.measure(model, *stand_ins.microlens()),
            model="phase-2shot",
        ),
    ]


def widefield_sections(model: Checkpoint) -> list[Section]:
    """Of the super-resolution model, and of what it is compared with."""
    return [
        Section(
            title="Super-resolution: T-SIM endoplasmic reticulum, after an affine fit",
            module="tsim_er",
            measure=lambda: tsim_er.measure(model, tsim_er.measured_fields()),
            small=lambda: tsim_er.measure(model, stand_ins.reticulum(), samples=2),
            model="widefield-x2",
            note=TSIM_NOTE,
        ),
        Section(
            title="Super-resolution: the same images by Richardson-Lucy",
            module="classical",
            measure=lambda: classical.tsim(tsim_er.measured_fields()),
            small=lambda: classical.tsim(stand_ins.reticulum()),
            note=CLASSICAL_NOTE,
        ),
        Section(
            title="Super-resolution: blank fields",
            module="blank",
            measure=lambda: blank.measure(model),
            small=lambda: blank.measure(model, samples=2, size=stand_ins.SIDE // 2),
            model="widefield-x2",
        ),
    ]


def processor() -> str:
    """Name of this machine's processor: seconds mean little without it."""
    names = [
        line.partition(":")[2].strip()
        for line in collect_env.get_cpu_info(collect_env.run).splitlines()
        if line.startswith("Model name")
    ]
    return names[0] if names else platform.machine()


def write_metrics(model: Checkpoint, rows: list[Row]) -> None:
    """Put the figures of a shipped model into its card."""
    metrics = {
        row.what: row.value
        + (f" (bar {row.bar}: {'met' if row.met else 'missed'})" if row.bar else "")
        for row in rows
    }
    write_card(
        SHIPPED / model.card.name,
        replace(model.card, metrics={**metrics, "command": "python -m paper.evidence"}),
    )


def measured(
    phase: Checkpoint, widefield: Checkpoint, *, small: bool
) -> list[tuple[Section, list[Row]]]:
    """Every section with its rows, printed as they come."""
    found = []
    for section in sections(phase, widefield):
        rows = section.small() if small else section.measure()
        print_rows(section.title, rows)
        found.append((section, rows))
    return found


def page_of(
    phase: Checkpoint, widefield: Checkpoint, found: list[tuple[Section, list[Row]]]
) -> str:
    """The page."""
    parts = [
        HEAD,
        f"Models: {phase.card.name} `{phase.sha256[:12]}`, {widefield.card.name} "
        f"`{widefield.sha256[:12]}`. ",
    ]
    parts.append(
        f"{datetime.now(UTC).date()}, torch {torch.__version__}, {torch.get_num_threads()} "
        f"threads, {processor()}.\n\n"
    )
    parts += [
        f"## {section.title}\n\n`python -m "
        f"paper.{section.module}`\n\n{table(rows)}\n{section.note}\n"
        for section, rows in found
    ]
    return "".join(parts).rstrip() + "\n"


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phase-model", default="phase-2shot")
    parser.add_argument("--widefield-model", default="widefield-x2")
    parser.add_argument(
        "--cards", action="store_true", help="also write the figures into the shipped models' cards"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument(
        "--small",
        action="store_true",
        help="only show that every section runs, on small simulated images; writes nothing",
    )
    options = parser.parse_args(words)
    phase, widefield = load_model(options.phase_model), load_model(options.widefield_model)
    if options.small:
        print(
            "Small images, many of them stand-ins for real ones: no figure below is evidence of "
            "anything."
        )
        measured(phase, widefield, small=True)
        return
    if not DATA.exists():
        raise SystemExit(
            f"the real images are not at {DATA}; the evidence page needs them. --small runs every "
            "section without."
        )
    found = measured(phase, widefield, small=False)
    options.page.write_text(page_of(phase, widefield, found), encoding="utf-8")
    for model in (phase, widefield) if options.cards else ():
        write_metrics(
            model,
            [row for section, rows in found if section.model == model.card.name for row in rows],
        )
    print(f"written: {options.page}")


if __name__ == "__main__":
    main()
