"""What guidance does: `python -m benchmarks.guidance [--model NAME] [--fields N] [--steps 0 1 3]`.

The same simulated fields, which no training saw, restored without guidance and with it: how far the result agrees with the measured image, and how far
with the truth.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.measure import Row, print_rows
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model
from napari_cvdm.trust.coverage import SpreadScore
from napari_cvdm.trust.judged import JudgedField, Sampling, judged_fields
from napari_cvdm.trust.noise_scale import field_score, mean_score
from napari_cvdm.trust.pair_sets import EVALUATION_SEED, Choice, PairSet, pair_set

MODELS = {"phase-2shot": 128, "widefield-x2": 64}  # side of the fields
SEED = EVALUATION_SEED + 50


def guided_scores(pairs: PairSet, model: Checkpoint, sampling: Sampling) -> list[tuple[SpreadScore, float]]:
    """Of every field that can be judged: its score, and chi-squared of its mean imaged again."""
    found = []
    for step in judged_fields(pairs, model, sampling):
        if isinstance(step, JudgedField) and (score := field_score(step)) is not None:
            chi2 = None if step.restoration.forward is None else step.restoration.forward.chi2
            found.append((score, np.nan if chi2 is None else chi2))
    return found


def rows_of(name: str, steps: Sequence[int], fields: int, samples: int) -> list[Row]:
    """The table of one model; ratios are to no guidance, the first of `steps`."""
    model, rows = load_model(name), []
    pairs = pair_set("simulation", model.card, Choice(fields=fields, first_seed=SEED, field_px=MODELS[name]))
    plain: np.ndarray | None = None
    for count in steps:
        found = guided_scores(pairs, model, Sampling(samples=samples, guidance=count))
        errors, mean = np.sqrt([score.error for score, _ in found]), mean_score([score for score, _ in found])
        plain = errors if plain is None else plain
        chi2 = np.nanmedian([chi2 for _, chi2 in found])
        values = [
            f"median chi^2 {chi2:.2f}",
            f"median error {np.median(errors / plain):.3f} of that without",
            f"nearer to the truth in {np.mean(errors < 0.99 * plain):.0%}, farther in {np.mean(errors > 1.01 * plain):.0%}",
            f"CRPS {mean.crps:.4g}, spread/skill {mean.ratio:.2f}",
        ]
        rows.append(Row(what=f"guidance {count}, {len(found)} fields", value="; ".join(values)))
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default=None, help="one model only")
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 3])
    arguments = parser.parse_args()
    for name in [arguments.model] if arguments.model else MODELS:
        print_rows(f"Guidance, {name}", rows_of(name, arguments.steps, arguments.fields, arguments.samples))


if __name__ == "__main__":
    main()
