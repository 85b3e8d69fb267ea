"""The reviewer's battery.

`python -m paper.reviewer all --out DIR`, or the names of some tests in place of all.

Prints a table for each test and writes DIR/MODEL/TEST.png and TEST.json; RESULTS.md in DIR/MODEL
gathers every test found there.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from napari_cvdm.models.registry import load_model, shipped_models
from paper.measure import Row, print_rows, table
from paper.reviewer.bench import SMALL, Bench, Finding, Plan
from paper.reviewer.registry import TESTS

RISE = 1.1  # error or spread is said to rise when it grows by a tenth


def write(folder: Path, name: str, finding: Finding) -> None:
    """Figure and rows of one test."""
    folder.mkdir(parents=True, exist_ok=True)
    finding.figure.savefig(folder / f"{name}.png", dpi=110)
    found = {"rows": [asdict(row) for row in finding.rows], "ratios": finding.ratios}
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def said_by_the_spread(ratios: Sequence[tuple[float, float]]) -> str:
    """Of the cases with a larger error, how many have a larger spread."""
    worse = [spread for error, spread in ratios if error > RISE]
    risen = sum(spread > RISE for spread in worse)
    return (
        f"The error grew by more than a tenth in {len(worse)} of {len(ratios)} cases; in {risen} "
        "of them the mean spread did, too."
    )


def gathered(folder: Path, head: str) -> str:
    """All tests found in a folder, in the order of the registry, as Markdown."""
    parts, ratios = [head], list[tuple[float, float]]()
    for name in TESTS:
        path = folder / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            parts.append(
                f"**{name}**: {TESTS[name].asks}\n\n{table([Row(**row) for row in found['rows']])}"
            )
            ratios += [(error, spread) for error, spread in found["ratios"].values()]
    return "\n".join([*parts, said_by_the_spread(ratios)]) + "\n"


def review(model: str, names: Sequence[str], out: Path, plan: Plan) -> None:
    """Run some tests on one model."""
    bench = Bench(model=load_model(model), plan=plan)
    folder = out / bench.model.card.name
    head = (
        f"Model {bench.model.card.name} `{bench.model.sha256[:12]}`, {plan.samples} samples of "
        f"{plan.steps} steps, input {bench.side} x {bench.side} px.\n"
    )
    for name in names:
        if bench.task in TESTS[name].tasks:
            finding = TESTS[name].run(bench)
            print_rows(f"{bench.model.card.name}, {name}: {TESTS[name].asks}", finding.rows)
            write(folder, name, finding)
            (folder / "RESULTS.md").write_text(gathered(folder, head), encoding="utf-8")
    print(f"written: {folder / 'RESULTS.md'}")


def main(words: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m paper.reviewer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("test", nargs="+", choices=["all", *TESTS])
    parser.add_argument("--out", type=Path, required=True, help="folder for figures and tables")
    parser.add_argument(
        "--model",
        action="append",
        help="name or folder; several may be given; both shipped models by default",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="small fields, few samples: that it runs, not what it says",
    )
    options = parser.parse_args(words)
    names = list(TESTS) if "all" in options.test else options.test
    for model in options.model or [name for name, _ in shipped_models()]:
        review(model, names, options.out, SMALL if options.small else Plan())


if __name__ == "__main__":
    main()
