"""Write docs/evidence.md from what the commands of this folder print.

`python -m paper.evidence --outputs DIR` reads DIR/SECTION.txt for each section of `SECTIONS`. A
command whose output is missing is run, and its output is kept there, so a run that was stopped goes
on. `--page-only` runs nothing. `--small` only shows, in seconds, that the measurements run.
"""

import argparse
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import torch
from torch.utils import collect_env

import napari_cvdm
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from paper import blank, classical, exactness, microlens, phase_accuracy, speed, spread, stand_ins
from paper import super_resolution as sr
from paper.measure import Row, print_rows, table

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
MODELS = ("phase-2shot", "widefield-x2")
VERDICTS = {"": None, "met": True, "MISSED": False}
HEAD = """# Evidence

`python -m paper.evidence --outputs DIR` of version {version} makes this page. Each table has the
figures that the commands above it printed. A bar that is missed says so. The real images are not
part of the repository; their sources and licences are with the data. No model was trained on them.
`python -m paper.gallery --out DIR` draws each of them beside the truth.
Models: {models}.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One measurement of the page.

    Parameters
    ----------
    name : str
        Of the saved output.
    title : str
    commands : tuple of str
        Lines of a shell that print it. DIR in a line is a folder for what the command writes.
    note : str
        What the table means, and what limits it.
    shipped : bool
        Whether the figures depend on the weights of the shipped models.
    bars_only : bool
        Whether rows without a bar are left out of the page.
    prefix : int, optional
        Which part of the title above a row (between commas) stands before its name.
    columns : tuple of str
        The columns of a Markdown table that the page shows, without intervals; all by default.
    """

    name: str
    title: str
    commands: tuple[str, ...]
    note: str
    shipped: bool = True
    bars_only: bool = False
    prefix: int | None = None
    columns: tuple[str, ...] = ()


REVIEWER = """Single fields: the table shows what happens, not how often. The command also prints
error and spread for wrong optics, unseen structure, saturation, JPEG and more, with figures. Do not
interpolate images before a reconstruction."""
BENCHMARK = (
    "model",
    "set",
    "RMSE",
    "90 % interval covers",
    "calibrated covers",
    "spread/skill",
)
SECTIONS = (
    Section(
        name="phase",
        title="Phase: error beside US-TIE and the physics alone",
        commands=("python -m paper.phase_accuracy photographs parts hl60 specimens real",),
        bars_only=True,
        note="""US-TIE has the regularisation that is best for each field, chosen with the truth.
The command also prints every field.

- The inversion beats US-TIE where objects reach the border. It does not on a whole cell, which is
  simulated with the periodic border that US-TIE assumes. The planes leave low spatial frequencies
  open there.
- The photograph `cell` costs most, because the border cuts its only object.
- The network adds hardly anything. 3 % of its change is taken, since more would contradict bright
  planes. A local network does not see the low frequencies of the remaining error.
- The condenser and the lamp of the real planes are not recorded.""",
    ),
    Section(
        name="microlens",
        title="Phase: a real microlens array",
        commands=("python -m paper.microlens",),
        note="The reference is the result of the US-TIE authors. The lenses exceed the training.",
    ),
    Section(
        name="classical",
        title="Classical methods on real data",
        commands=("python -m paper.classical", "python -m paper.waveorder_check --python PYTHON"),
        shipped=False,
        note="""The stored results differ from `us-tie` in periods above some 400 px, which noise
and the frame determine. The optics of T-SIM are assumed.""",
    ),
    Section(
        name="super_resolution",
        title="Super-resolution: error beside Richardson-Lucy",
        commands=("python -m paper.super_resolution tsim filtered dlsim airyscan textures flux",),
        bars_only=True,
        note="""Real images are registered to the sharper image and compared at matched resolution.
The optics of T-SIM and dL-SIM are assumed (NA 1.4, 520 nm, oil).

- After the filter that fits the truth of T-SIM best (`filtered`), both methods reach the same PSNR.
  So sharpness is not what is missing. SIM and widefield image differ at low spatial frequencies.
- The published dL-SIM image has no haze, which the model keeps. Its check is amber there.
- More training, another NA, more steps of Richardson-Lucy and a predicted standard deviation of the
  residual did not improve all sets.""",
    ),
    Section(
        name="points",
        title="Super-resolution: pairs of points",
        commands=("python -m paper.super_resolution points",),
        note="""The smallest distance from which on 90 % of the pairs are resolved. Simulated
points, in focus, without haze. The truth has the resolution that the card of the model states.""",
    ),
    Section(
        name="time",
        title="Time of one image",
        commands=(
            "OMP_NUM_THREADS=2 python -m paper.phase_accuracy time",
            "OMP_NUM_THREADS=2 python -m paper.super_resolution speed",
        ),
        note="""256 x 256 pixels with the check. Two hypotheses about the border of a phase are
fitted, and `cells 0` needs a larger canvas. bf16 needs a processor with AMX.""",
    ),
    Section(
        name="blank",
        title="Super-resolution: blank fields",
        commands=("python -m paper.blank",),
        bars_only=True,
        note="False structure exceeds 1.5 standard deviations of the noise.",
    ),
    Section(
        name="calibration",
        title="Calibrated intervals",
        commands=(
            "napari-cvdm calibrate phase-2shot --in-place --fields 100 --check 60 --field-px 128 "
            "--samples 8",
            "napari-cvdm calibrate widefield-x2 --in-place --fields 100 --check 100 --field-px 96 "
            "--samples 8",
            "napari-cvdm evaluate widefield-x2 --set other-optics --fields 40 --field-px 96 "
            "--samples 8 --out DIR",
            "python -m paper.phase_inversion spread",
        ),
        note="""A normal distribution needs a factor of 1.6. The factor of the phase is large
because the training has planes with almost no signal. The interval is too narrow for those and too
wide for most others.""",
    ),
    Section(
        name="benchmark_phase",
        title="Phase: the model and classical methods on simulated fields",
        commands=(
            "napari-cvdm benchmark --out DIR --models phase-2shot phase-physics us-tie wotf "
            "--fields 16 --samples 16 --field-px 128",
        ),
        columns=BENCHMARK,
        note="""Radians. A few fields with large errors at low spatial frequencies dominate. The
command also prints bootstrap intervals. It counts one answer of a classical method, so the draws
of phase-physics do not show.""",
    ),
    Section(
        name="benchmark_widefield",
        title="Super-resolution: the model and Richardson-Lucy on simulated fields",
        commands=(
            "napari-cvdm benchmark --out DIR --models widefield-x2 richardson-lucy --fields 16 "
            "--samples 16 --field-px 64",
        ),
        columns=BENCHMARK,
        note="The spread is too small. The calibration corrects that on average.",
    ),
    Section(
        name="spread",
        title="Spread beside error: the sample images",
        commands=("python -m paper.spread",),
        note="""The spread is no error bar: that of super-resolution is much smaller than the error.
The calibration corrects this on average.""",
    ),
    Section(
        name="check",
        title="The check: chi-squared of the truth, and of planted faults",
        commands=("python -m paper.forward_check --fields 20 --reconstructed 0",),
        prefix=0,
        shipped=False,
        note="""Median, 95 % quantile, share beyond the limit of 1.5. The ranges go down to 8
photons and 0.05 rad, where noise hides many faults. So a green flag is no proof.""",
    ),
    Section(
        name="reviewer_phase",
        title="What a reviewer would try: phase",
        commands=("python -m paper.reviewer all --model phase-2shot --out DIR",),
        prefix=1,
        bars_only=True,
        note=REVIEWER,
    ),
    Section(
        name="reviewer_widefield",
        title="What a reviewer would try: super-resolution",
        commands=("python -m paper.reviewer all --model widefield-x2 --out DIR",),
        prefix=1,
        bars_only=True,
        note="""Single fields. The signal of an input is its counts above a guessed background,
which is uncertain where little signal is left. Light from out of focus and hot pixels appear as
structure.""",
    ),
    Section(
        name="schedule",
        title="Experiments: the learned schedule",
        commands=(
            "python -m paper.experiments recipes/experiments/schedule.toml "
            "recipes/experiments/alpha.toml --out DIR",
        ),
        shipped=False,
        columns=("variant", "RMSE", "CRPS", "t of gamma = 1/2", "lambda with spread"),
        note="""Small models of 3,000 steps, three seeds, sixteen fields. RMSE differs by up to 4 %
between seeds. The second table varies alpha. Without L_gamma (alpha 0) the schedule degenerates, as
in the paper, and the error hardly changes. The rate follows the image near 1e-3 only.""",
    ),
    Section(
        name="claims",
        title="Experiments: CVDM beside fixed schedules and regression",
        commands=(
            "python -m paper.experiments recipes/experiments/claims-widefield.toml --out DIR "
            "--steps-factor 0.5",
            "python -m paper.experiments recipes/experiments/claims-denoising.toml --out DIR "
            "--steps-factor 0.3",
        ),
        shipped=False,
        columns=("variant", "RMSE", "CRPS", "spread / error"),
        note="""Two seeds, 600 to 1,000 steps: super-resolution, denoising. Within the seeds the
learned schedule equals the best fixed one. Regression has the lowest error, diffusion the lower
CRPS. The paper's gains (51 %, 84 %) were for one optical setting and long training. The first table
averages weights for too long, which makes all errors larger. For phase (`claims-phase.toml`) all
variants are alike.""",
    ),
    Section(
        name="paper_setting",
        title="Experiments: the setting of the paper, with and without the physics",
        commands=("python -m paper.paper_setting table --out DIR",),
        shipped=False,
        columns=("method", "seeds", "mean error", "crps", "covered", "rate error"),
        note="""Means over twelve photographs [rad]. Small networks of 10,000 steps, of which a
part is trained. *rate error* is Spearman's correlation of the learned rate with the absolute error.
Super-resolution (`paper-setting-widefield.toml`) is not trained yet.""",
    ),
    Section(
        name="inputs",
        title="Experiments: deconvolved channels and textures",
        commands=(
            "python -m paper.experiments recipes/experiments/deconvolution.toml "
            "recipes/experiments/textures.toml --out DIR",
        ),
        shipped=False,
        columns=("variant", "RMSE", "RMSE on structures", "RMSE on textures"),
        note="""Regressions of 2,000 steps, two seeds, 32 fields. The shipped model has both. Two
studies without an effect: the shape of the rate and clock networks (`schedule-architecture.toml`),
and the spread on structure that no training showed (`unseen-structure.toml`).""",
    ),
    Section(
        name="fine_tuning",
        title="Fine-tuning",
        commands=("xvfb-run -a python -m paper.fine_tuning --dock",),
        note="""Eight fields of an objective (NA 0.45) that the model never saw. Fewer steps (400
and 250) lower the error by 7 % only, and the dock does not offer that model.""",
    ),
    Section(
        name="kills",
        title="Kills and power cuts",
        commands=("python -m tests.stress.kills",),
        shipped=False,
        note="""Each command goes on to the same bytes. Power cuts are those of a simulated disk
and of a mounted one.""",
    ),
    Section(
        name="speed",
        title="Speed",
        commands=(
            "python -m paper.speed --only ratio --only stages --only overhead --only rate",
            "OMP_NUM_THREADS=2 python -m paper.speed --only large --only one",
            "xvfb-run -a python -m paper.startup",
        ),
        prefix=0,
        bars_only=True,
        note="""Processor time of one thread, both sides by turns, on a shared machine. *Published*
is the U-Net and the 200 steps of the official code, rebuilt in torch. Precision bf16 is about
twice as fast with AMX, and changes samples by 0.2 % (phase) or 1.5 % of the spread.""",
    ),
    Section(
        name="evaluations",
        title="Number of evaluations",
        commands=("python -m paper.evaluations --out DIR",),
        note="""CRPS over the best of the model; in brackets spread over error. `sde-2m` comes
within 2 % of the best at 6 evaluations, the default. With 10 fields, 1 % may be chance.""",
    ),
    Section(
        name="scale",
        title="Large images",
        commands=(
            "python -m paper.scale memory --model tiny-denoise --steps 1 --samples 1 --block 1024 "
            "--sizes 32768",
            "python -m paper.scale slope --model tiny-denoise --steps 1 --samples 1 --block 1024 "
            "--sizes 512 1024 2048 4096 8192 16384",
            "python -m paper.scale halo --model widefield-x2 --steps 6 --samples 4 --block 128 "
            "--sizes 256",
        ),
        shipped=False,
        note="""A network of almost no cost shows reading, writing and bookkeeping. On a cluster the
global statistics are the first limit, then storage, then the scheduler.""",
    ),
    Section(
        name="soak",
        title="Long runs",
        commands=(
            "python -m tests.stress.soak --minutes 4",
            "xvfb-run -a python -m tests.stress.soak --window --minutes 6",
            "xvfb-run -a python -m tests.stress.soak --bare --minutes 2",
        ),
        prefix=0,
        shipped=False,
        bars_only=True,
        note="A lap has several runs and, in a window, three docks. napari alone misses the bar.",
    ),
    Section(
        name="fuzz",
        title="Damaged files",
        commands=("python -m tests.stress.fuzz --minutes 10",),
        shipped=False,
        note="An escape is anything but a clean reading or one line of error. All are mended.",
    ),
    Section(
        name="exactness",
        title="Exactness",
        commands=("python -m paper.exactness",),
        shipped=False,
        note="Equations with a known solution.",
    ),
)


UNTIED = """A whole cell in a flat medium: version 0.1.0 tied its low spatial frequencies to US-TIE,
which repeats the field, too."""
NARROW = """Samples of super-resolution differ less from each other than from the truth. The
calibrated interval corrects this on average."""
INVERTED = "Each image is inverted before it is sampled."
# Section, beginning of a row of it, what version 0.1.0 measured there, and why it differs.
FIRST_VERSION = (
    ("phase", "HL60 whole: mean of US-TIE", "0.85 of US-TIE", UNTIED),
    ("spread", "network: RMS error, RMS spread", "4.37, 4.55 counts", NARROW),
    ("speed", "phase-2shot: 256 x 256 input, 1 sample", "1.62 s processor", INVERTED),
    ("speed", "widefield-x2: 256 x 256 input, 1 sample", "2.88 s processor", INVERTED),
    ("speed", "phase-2shot: 16 samples of 512 x 512, 6 evaluations, fp32", "14.0 s", INVERTED),
    ("speed", "widefield-x2: 16 samples of 512 x 512, 6 evaluations, fp32", "9.9 s", INVERTED),
)
WORSE_TITLE = "What got worse since 0.1.0"


def small_measurements(
    phase: Checkpoint, widefield: Checkpoint
) -> dict[str, Callable[[], Sequence[Row]]]:
    """Sections on small images, with stand-ins for the real ones: they show that these run.

    Sections that are missing here have tests of their own.
    """
    return {
        "phase": lambda: phase_accuracy.compare(
            "small",
            phase_accuracy.phase_fields.photograph_fields(stand_ins.SIDE, names=("camera",)),
            phase,
            phase_accuracy.mean_error,
            0.5,
            ratio=True,
        ),
        "microlens": lambda: microlens.measure(phase, *stand_ins.microlens()),
        "classical": lambda: classical.tsim(stand_ins.reticulum()),
        "super_resolution": lambda: list(
            sr.real_rows(widefield, iter([stand_ins.real_field()]), 0.0, samples=2)
        ),
        "blank": lambda: blank.measure(widefield, samples=2, size=stand_ins.SIDE // 2),
        "spread": lambda: spread.measure(
            phase, widefield, spread.Plan(samples=2, side=stand_ins.SIDE)
        ),
        "speed": lambda: [
            row for model in (phase, widefield) for row in speed.one_rows(model, stand_ins.SIDE, 1)
        ],
        "exactness": lambda: exactness.measure(20_000),
    }


def stamp() -> str:
    """Today, the shipped models and the machine: seconds mean little without it."""
    models = ", ".join(f"{name} {load_model(name).sha256[:12]}" for name in MODELS)
    described = collect_env.get_cpu_info(collect_env.run).splitlines()
    names = [line.partition(":")[2].strip() for line in described if line.startswith("Model name")]
    machine = names[0] if names else platform.machine()
    return f"{datetime.now(UTC).date()}; {models}; torch {torch.__version__}, {machine}"


def run(section: Section, outputs: Path) -> str:
    """Carry out the commands of a section; what they print, below a line with the stamp."""
    folder = outputs / section.name
    printed = [f"# {stamp()}\n"]
    for command in section.commands:
        words = shlex.split(f"env {command.replace('DIR', shlex.quote(str(folder)))}")
        swapped = {
            "python": [sys.executable],
            "napari-cvdm": [sys.executable, "-m", "napari_cvdm.cli"],
        }
        line = [part for word in words for part in swapped.get(word, [word])]
        print("$", command, flush=True)
        printed.append(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        printed += [path.read_text("utf-8") for path in sorted(folder.glob("table.md"))]
    return "".join(printed)


def read_rows(text: str, prefix: int | None) -> Iterator[Row]:
    """The rows that `print_rows` printed."""
    title = [""]
    for line in text.splitlines():
        if not line.startswith("  "):
            title = line.partition(":")[0].split(", ")
            continue
        what, value, bar, verdict = [*re.split(r" {2,}", line.strip()), "", ""][:4]
        named = what if prefix is None else f"{title[prefix]}: {what}"
        yield Row(what=named, value=value, bar=bar, met=VERDICTS[verdict])


def choose_columns(lines: Sequence[str], columns: tuple[str, ...]) -> list[str]:
    """A Markdown table with some of its columns, and then without intervals ("1 (0.9 to 1.1)")."""
    text = [re.sub(r" \([^()|]* to [^()|]*\)", "", line) if columns else line for line in lines]
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text]
    kept = [number for number, name in enumerate(cells[0]) if not columns or name in columns]
    return ["| " + " | ".join(row[number] for number in kept) + " |" for row in cells]


def show(section: Section, text: str) -> str:
    """The output of a section as the page has it: rows, tables, or the lines as they are."""
    groups = groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    tables = [choose_columns(list(lines), section.columns) for found, lines in groups if found]
    rows = list(read_rows(text, section.prefix)) if "\n  " in text else []
    parts = ["\n".join(lines) + "\n" for lines in tables]
    if rows:
        parts.append(table([row for row in rows if row.bar or not section.bars_only]))
    return "\n".join(parts) if parts else f"```text\n{text.strip()}\n```\n"


def describe(section: Section, saved: str, before: str = "") -> str:
    """A section of the page from its saved output, whose first line is the stamp.

    The machine is named where it is not that of the section `before`.
    """
    head, _, text = saved.partition("\n")
    date, models, machine = head.removeprefix("# ").split("; ")
    made = date if before.partition("\n")[0].endswith(f"; {machine}") else f"{date}, {machine}"
    if section.shipped and models != stamp().split("; ")[1]:
        made += f", earlier weights ({models})"
    commands = "\n".join(section.commands)
    return (
        f"## {section.title}\n\n```sh\n{commands}\n```\n\n{show(section, text)}\n"
        f"{made}. {section.note}\n\n"
    )


def compare_with_first(saved: dict[str, str]) -> str:
    """What got worse since version 0.1.0, from rows that it measured, too; empty without them."""
    prefixes = {one.name: one.prefix for one in SECTIONS}
    found = [
        (row.what, then, row.value, why)
        for section, beginning, then, why in FIRST_VERSION
        for row in read_rows(saved.get(section, ""), prefixes.get(section))
        if beginning in row.what
    ]
    if not found:
        return ""
    lines = [("measured", "0.1.0", "now"), ("---",) * 3, *(one[:3] for one in found)]
    shown = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    reasons = "\n\n".join(dict.fromkeys(why for *_, why in found))
    return f"## {WORSE_TITLE}\n\n{shown}\n{reasons}\n"


def make_page(saved: dict[str, str]) -> str:
    """The page from the saved outputs by section."""
    models = ", ".join(f"{name} `{load_model(name).sha256[:12]}`" for name in MODELS)
    outputs = [saved[section.name] for section in SECTIONS]
    return (
        "".join(
            [
                HEAD.format(version=napari_cvdm.__version__, models=models),
                *map(describe, SECTIONS, outputs, ["", *outputs]),
                compare_with_first(saved),
            ]
        ).rstrip()
        + "\n"
    )


def measure_small(phase: Checkpoint, widefield: Checkpoint) -> dict[str, Sequence[Row]]:
    """Every small measurement, printed as it comes."""
    found: dict[str, Sequence[Row]] = {}
    for name, measure in small_measurements(phase, widefield).items():
        found[name] = measure()
        print_rows(name, found[name])
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outputs", type=Path, metavar="DIR", help="folder of saved outputs")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--page-only", action="store_true", help="run nothing")
    parser.add_argument(
        "--small", action="store_true", help="small images, nothing is written: that it runs"
    )
    options = parser.parse_args(words)
    if options.small:
        print("Small images, some of them stand-ins: no figure below is evidence of anything.")
        measure_small(*map(load_model, MODELS))
        return
    if options.outputs is None:
        parser.error("--outputs DIR or --small is needed")
    options.outputs.mkdir(parents=True, exist_ok=True)
    saved = {}
    for section in SECTIONS:
        path = options.outputs / f"{section.name}.txt"
        if not path.exists():
            if options.page_only:
                parser.error(f"{path} is missing; leave out --page-only to run its commands")
            path.write_text(run(section, options.outputs), encoding="utf-8")
        saved[section.name] = path.read_text(encoding="utf-8")
    options.page.write_text(make_page(saved), encoding="utf-8")
    print(f"written: {options.page}")


if __name__ == "__main__":
    main()
