"""Simulated fields after inversion or deconvolution, kept on disk.

They are solved once and cut into patches in every epoch. Each field is one NPZ file, named by its
number. A file is written completely before it gets its name, so that a killed run resumes where it
stopped. A record beside the files stores the seed, the ranges and the version, so that a folder
never holds fields of two kinds.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cvdm import __version__
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.physics.camera_noise import inverse_variance
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.simulate.ranges import PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import DrawPhase, draw_phase, simulate_fluorescence, simulate_phase
from napari_cvdm.tasks import FLUORESCENCE
from napari_cvdm.tasks.phase_inversion import PhaseMaps, invert_planes, phase_maps
from napari_cvdm.tasks.phase_posterior import PosteriorDraws
from napari_cvdm.training.fields import TrainingField, simulated_fluorescence, solved_field

RECORD = "fields.json"
EDITION = 3  # raised where a seed comes to another field: inversion, deconvolution, stored names
# Kept as float16; pulls are too large for it.
COARSE = ("width", "border_difference", "misfit", "absorption")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SolvedField:
    """The maps of one field and its truth within the frame (h, w) [rad]."""

    maps: PhaseMaps
    truth: np.ndarray


def solve_field(seed: int, ranges: PhaseRanges, draw: DrawPhase = draw_phase) -> SolvedField:
    """Simulate one field and invert it as a user's image; parameters as of `simulate_phase`."""
    pair = simulate_phase(seed, ranges, draw)
    weight = torch.from_numpy(inverse_variance(pair.planes)).float()
    estimate = finished(
        invert_planes(
            torch.from_numpy(pair.planes),
            weight,
            pair.defocus_um,
            pair.microscope,
            pair.condenser_na,
        )
    )
    fresnel = max(fresnel_number(z, pair.microscope) for z in pair.defocus_um)
    return SolvedField(
        maps=phase_maps(estimate, fresnel, PosteriorDraws(estimate.fit, seed).first()),
        truth=pair.phase,
    )


def save_field(path: Path, solved: SolvedField) -> None:
    """Write one field."""
    maps = {entry.name: getattr(solved.maps, entry.name) for entry in fields(PhaseMaps)}
    rows, columns = maps.pop("frame")
    maps |= {name: np.clip(maps[name], -6e4, 6e4).astype(np.float16) for name in COARSE}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            truth=solved.truth,
            frame=[rows.start, rows.stop, columns.start, columns.stop],
            **maps,
        )
    partial.replace(path)


def load_field(path: Path) -> SolvedField:
    """Read one field back."""
    with np.load(path, allow_pickle=False) as kept:
        values = {name: kept[name].astype(np.float32) for name in kept.files}
    top, bottom, left, right = values.pop("frame").astype(int).tolist()
    truth = values.pop("truth")
    fresnel, noise = (float(values.pop(name)) for name in ("fresnel", "noise"))
    maps = PhaseMaps(
        frame=(slice(top, bottom), slice(left, right)), fresnel=fresnel, noise=noise, **values
    )
    return SolvedField(maps=maps, truth=truth)


def save_training_field(path: Path, solved: TrainingField) -> None:
    """Write a field that is ready for training, in half precision."""
    images = {
        name: getattr(solved, name).numpy().astype(np.float16)
        for name in ("channels", "initial_estimate", "truth")
    }
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            weight=solved.weight,
            pixel_um=solved.pixel_um or 0.0,
            fine_channels=solved.fine_channels,
            **images,
        )
    partial.replace(path)


def load_training_field(path: Path) -> TrainingField:
    """Read a field of either kind, ready for training."""
    with np.load(path, allow_pickle=False) as kept:
        if "channels" in kept.files:
            images = {
                name: torch.from_numpy(kept[name].astype(np.float32))
                for name in ("channels", "initial_estimate", "truth")
            }
            return TrainingField(
                weight=float(kept["weight"]),
                pixel_um=float(kept["pixel_um"]) or None,
                fine_channels=int(kept["fine_channels"]),
                **images,
            )
    solved = load_field(path)
    return solved_field(solved.maps, solved.truth)


def solve_missing(
    folder: Path, ranges: PhaseRanges | WidefieldRanges, seed: int, numbers: range
) -> Iterator[int]:
    """Solve and save every missing field of these numbers, one at a time.

    Yields
    ------
    int
        The number of each field, when it is saved.

    Raises
    ------
    RequestError
        A folder with fields of another seed, other ranges or another version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_of = {"version": __version__, "edition": EDITION, "seed": seed, **ranges_entry(ranges)}
    check_record(folder, made_of)
    (folder / RECORD).write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
    for number in numbers:
        path = folder / f"{number:06d}.npz"
        if path.exists():
            pass
        elif isinstance(ranges, PhaseRanges):
            save_field(path, solve_field(seed + number, ranges))
        else:
            save_training_field(
                path,
                simulated_fluorescence(
                    FLUORESCENCE[ranges.task],
                    simulate_fluorescence(seed + number, ranges),
                    seed + number,
                ),
            )
        yield number


def ranges_entry(ranges: PhaseRanges | WidefieldRanges) -> dict[str, Any]:
    """Ranges as a record has them: wherever the folder of photographs lies."""
    return {"ranges": asdict(ranges) | {"photographs": Path(ranges.photographs).name}}


def check_record(folder: Path, made_of: dict[str, Any]) -> None:
    """Raise RequestError if the record beside the fields exists and differs from `made_of`."""
    path = folder / RECORD
    if not path.exists():
        return
    kept, wanted = json.loads(path.read_text(encoding="utf-8")), json.loads(json.dumps(made_of))
    different = sorted(name for name in wanted if kept.get(name) != wanted[name])
    if different:
        raise RequestError(
            f"{path}: the fields in this folder have other {', '.join(different)}; name another "
            "folder, or delete this one."
        )
