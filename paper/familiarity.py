"""What a model's simulated training fields look like, into its card.

`python -m paper.familiarity MODEL [--fields N] [--held-out N]`

MODEL is a shipped name or a checkpoint folder whose card has the ranges of its simulation. The card
is written anew, the weights stay as they are.
"""

import argparse
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from napari_cvdm.checks.out_of_distribution import (
    TrainingDistribution,
    channel_vectors,
    image_names,
    vectors_of,
)
from napari_cvdm.models.checkpoint import CheckpointError, ModelCard, read_card, write_card
from napari_cvdm.models.registry import model_folder
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import simulate_widefield
from napari_cvdm.tasks import Denoise
from napari_cvdm.tasks.phase_input import FieldNumbers, inner_frame, network_channels
from napari_cvdm.training.sources import solve_field

FIRST_SEED = 5_000_000  # the shipped models were trained on other fields


def ranges_of(card: ModelCard) -> dict[str, Any]:
    """Ranges that a card's training fields were drawn from.

    CheckpointError where they were not simulated.
    """
    simulation = card.training.get("simulation")
    if not simulation:
        raise CheckpointError(
            f"{card.name}: its card has no simulation, so no training fields can be made; it "
            "keeps its card."
        )
    known = {entry.name for entry in fields(PhaseRanges if card.unit == "rad" else WidefieldRanges)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in simulation.items()
        if name in known
    }


def measure_field(card: ModelCard, seed: int) -> np.ndarray:
    """Statistics of one simulated training field, prepared as for training."""
    if card.unit == "rad":
        maps = solve_field(seed, PhaseRanges(**ranges_of(card))).maps
        channels = network_channels(maps, FieldNumbers.measure(maps))
        return channel_vectors(channels[:, *inner_frame(maps)].numpy(), card.unit)
    counts = simulate_widefield(seed, WidefieldRanges(**ranges_of(card))).counts
    return vectors_of(
        Denoise().condition(counts[None], "auto"), card.unit
    )  # its signal is that of every fluorescence task


def vectors(card: ModelCard, seeds: range) -> Iterator[np.ndarray]:
    """Statistics of simulated fields."""
    for seed in tqdm(seeds):
        yield measure_field(card, seed)


def main() -> None:
    """Fit, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--fields", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=400)
    arguments = parser.parse_args()
    folder = model_folder(arguments.model)
    card = read_card(folder)
    last = FIRST_SEED + arguments.fields
    fitted = list(vectors(card, range(FIRST_SEED, last)))
    familiarity = TrainingDistribution.fit(
        fitted, list(vectors(card, range(last, last + arguments.held_out))), image_names(card.unit)
    )
    counts = {"fields": arguments.fields, "held_out": arguments.held_out, "first_seed": FIRST_SEED}
    command = (
        f"python -m paper.familiarity {arguments.model} --fields {arguments.fields} "
        f"--held-out {arguments.held_out}"
    )
    write_card(
        folder, replace(card, familiarity={**familiarity.plain(), **counts, "command": command})
    )
    print(
        f"{card.name}: threshold {familiarity.threshold:.3f}, the {len(familiarity.mean)} "
        f"statistics of {arguments.fields} fields"
    )


if __name__ == "__main__":
    main()
