"""Phase in the setting of the official code, on objects that no training showed.

`python -m paper.official_setting`

0.21 um pixels, 0.521 um, planes at +-1 um in air, phases from 0 to 3.5 rad, noise of standard
deviation 0.05 on an intensity of 1 (arXiv 2312.02246). The phases are photographs that come with
scikit-image, so nothing about them is like the cells and textures of the training. The official
code propagates a field that is its own neighbour on every side; a microscope sees a part of a
larger one, which is measured, too.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from paper import phase_fields
from paper.measure import Row, print_rows
from paper.phase_accuracy import best_us_tie, mean_error, solve

SIDE, BEYOND = 224, 16  # waves from outside the frame reach in, where it is part of a larger one
PHOTOGRAPHS = phase_fields.PHOTOGRAPHS[:8]
BAR = 0.506  # lower than US-TIE, as the paper reports it


def compared(
    model: Checkpoint, photographs: Sequence[str], side: int, margin: int, said: str
) -> list[Row]:
    """Mean absolute errors of every photograph, and the mean over them."""
    fields = phase_fields.photograph_fields(side, margin, photographs)
    pairs = [
        (mean_error(solve(one, model).mean, one.phase), best_us_tie(one, mean_error))
        for one in fields
    ]
    rows = [
        Row(
            what=f"{said}, {one.name}: MAE, CVDM / best US-TIE [rad]",
            value=f"{ours:.3f} / {tie:.3f}",
        )
        for one, (ours, tie) in zip(fields, pairs, strict=True)
    ]
    ours, tie = np.mean(pairs, axis=0)
    value, met = f"{ours:.3f} / {tie:.3f}: {1 - ours / tie:+.1%} lower", bool(1 - ours / tie >= BAR)
    return [
        *rows,
        Row(
            what=f"{said}: mean MAE, CVDM / best US-TIE [rad]",
            value=value,
            bar=f">= {BAR:.1%} lower",
            met=met,
        ),
    ]


def measure(
    model: Checkpoint, photographs: Sequence[str] = PHOTOGRAPHS, side: int = SIDE
) -> list[Row]:
    """The official setting, and the same photographs as parts of larger fields."""
    return [
        row
        for margin, said in ((0, "official"), (BEYOND, "part of a larger field"))
        for row in compared(model, photographs, side, margin, said)
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="phase-2shot")
    print_rows("Phase, the official setting", measure(load_model(parser.parse_args(words).model)))


if __name__ == "__main__":
    main()
