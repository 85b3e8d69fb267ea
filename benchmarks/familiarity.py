"""What a model's simulated training fields look like, into its card: `python -m benchmarks.familiarity MODEL [--fields N] [--held-out N]`.

MODEL is a shipped name or a checkpoint folder whose card has the ranges of its simulation. The card is written anew, the weights stay as they are.
"""

import argparse
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from napari_cvdm.model.checkpoint import CheckpointError, ModelCard, read_card, write_card
from napari_cvdm.model.zoo import model_folder
from napari_cvdm.simulate.phase import PhaseRanges, simulate_phase
from napari_cvdm.simulate.widefield import WidefieldRanges, simulate_widefield
from napari_cvdm.tasks import Conditioned, PhaseTwoShot, WidefieldX2
from napari_cvdm.trust.familiarity import Familiarity, vectors_of

FIRST_SEED = 5_000_000  # the shipped models were trained on other fields


def ranges_of(card: ModelCard) -> dict[str, Any]:
    """Ranges that a card's training fields were drawn from; CheckpointError where they were not simulated."""
    simulation = card.training.get("simulation")
    if not simulation:
        raise CheckpointError(f"{card.name}: its card has no simulation, so no training fields can be made; it keeps its card.")
    known = {entry.name for entry in fields(PhaseRanges if card.unit == "rad" else WidefieldRanges)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in simulation.items() if name in known}


def conditioned(card: ModelCard, seed: int) -> Conditioned:
    """One simulated training field, prepared as for training."""
    if card.unit == "rad":
        pair = simulate_phase(seed, PhaseRanges(**ranges_of(card)))
        return PhaseTwoShot().condition(pair.planes, pair.microscope, pair.defocus_um, "auto")
    return WidefieldX2().condition(simulate_widefield(seed, WidefieldRanges(**ranges_of(card))).counts[None], "auto")


def vectors(card: ModelCard, seeds: range) -> Iterator[np.ndarray]:
    """Statistics of simulated fields."""
    for seed in tqdm(seeds):
        yield vectors_of(conditioned(card, seed), card.unit)


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
    familiarity = Familiarity.fit(fitted, list(vectors(card, range(last, last + arguments.held_out))))
    counts = {"fields": arguments.fields, "held_out": arguments.held_out, "first_seed": FIRST_SEED}
    command = f"python -m benchmarks.familiarity {arguments.model} --fields {arguments.fields} --held-out {arguments.held_out}"
    write_card(folder, replace(card, familiarity={**familiarity.plain(), **counts, "command": command}))
    print(f"{card.name}: threshold {familiarity.threshold:.3f}, the {len(familiarity.mean)} statistics of {arguments.fields} fields")


if __name__ == "__main__":
    main()
