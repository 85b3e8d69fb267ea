"""Run every benchmark and write docs/evidence.md: `python -m benchmarks.evidence`."""

import argparse
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import blank, exactness, hl60, microlens, speed, tsim_er
from benchmarks.measure import DATA, Row, print_rows
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
HEAD = """# Evidence

Every figure on this page was printed by a command in the repository; `python -m benchmarks.evidence` runs them all and
writes the page. The real images are not part of the repository (their sources and licences are with the data); the models
never saw them. A bar that was missed says so.

"""


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    lines = ["| measured | value | bar | |", "|---|---|---|---|"]
    verdicts = {None: "", True: "met", False: "**missed**"}
    return "\n".join([*lines, *(f"| {row.what} | {row.value} | {row.bar} | {verdicts[row.met]} |" for row in rows)]) + "\n"


def sections(phase: Checkpoint, widefield: Checkpoint) -> list[tuple[str, str, Callable[[], list[Row]]]]:
    """Title, command and measurement of each section."""
    return [
        ("Exactness", "python -m benchmarks.exactness", exactness.measure),
        ("Phase: HL60 cell, +-1 um, 1e4 photons per pixel, piston removed", "python -m benchmarks.hl60", lambda: hl60.measure(phase)),
        ("Phase: a real microlens array", "python -m benchmarks.microlens", lambda: microlens.measure(phase)),
        ("Super-resolution: T-SIM endoplasmic reticulum, after an affine fit", "python -m benchmarks.tsim_er", lambda: tsim_er.measure(widefield)),
        ("Super-resolution: blank fields", "python -m benchmarks.blank", lambda: blank.measure(widefield)),
        ("Speed", "python -m benchmarks.speed", lambda: [*speed.measure(phase), *speed.measure(widefield)]),
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phase-model", default="phase-2shot")
    parser.add_argument("--widefield-model", default="widefield-x2")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"the real images are not at {DATA}; the evidence page needs them.")
    phase, widefield = load_model(options.phase_model), load_model(options.widefield_model)
    parts = [HEAD, f"Models: phase-2shot `{phase.sha256[:12]}`, widefield-x2 `{widefield.sha256[:12]}`. "]
    parts.append(f"{datetime.now(UTC).date()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}.\n\n")
    for title, command, measure in sections(phase, widefield):
        rows = measure()
        print_rows(title, rows)
        parts.append(f"## {title}\n\n`{command}`\n\n{table(rows)}\n")
    options.page.write_text("".join(parts), encoding="utf-8")
    print(f"written: {options.page}")


if __name__ == "__main__":
    main()
