"""What a mistake between two planes costs, as they are and with what is taken back: `python -m benchmarks.plane_mistakes`.

Without --model, the phase is what the model is given: US-TIE without what noise explains, levelled by empty medium.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from benchmarks import hl60
from benchmarks.measure import DATA, Row, finish, print_rows, rmse
from napari_cvdm.microscope import Microscope
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.zoo import load_model
from napari_cvdm.request import Align, ImageStack, RestoreRequest
from napari_cvdm.simulate.phase import PhaseRanges, defocus_pair_of, simulate_phase
from napari_cvdm.simulate.samples import CELL_DEFOCUS_UM, CELL_MICROSCOPE, cell_phase
from napari_cvdm.tasks import PhaseTwoShot
from napari_cvdm.tasks.conditioned import Conditioned
from napari_cvdm.trust.plane_checks import plane_warnings

PHOTONS = 1e4
SPECK_ABSORBANCE, SPECK_SHARE, SPECK_PX, SPECK_SEED = 0.5, 0.003, 1.5, 5
SPLINE = 5
Spoil = Callable[[np.ndarray], np.ndarray]
"""Noiseless planes (2, Y, X) to the same with a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """A phase [rad], its noiseless planes (2, Y, X) and the optics."""

    phase: np.ndarray = field(repr=False)
    planes: np.ndarray = field(repr=False)
    microscope: Microscope
    defocus_um: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """RMSE [rad], what was taken back, and whether a flipped sign was suspected."""

    rmse_rad: float
    corrected: tuple[str, ...]
    suspected: bool


def specks(shape: tuple[int, int]) -> np.ndarray:
    """Absorbance of dust in the sample, (Y, X)."""
    dust = np.random.default_rng(SPECK_SEED).random(shape) < SPECK_SHARE
    blurred = gaussian_filter(dust.astype(float), SPECK_PX)
    return SPECK_ABSORBANCE * blurred / blurred.max()


def field_of(phase: np.ndarray, microscope: Microscope, defocus_um: tuple[float, float], dusty: bool) -> Field:
    """A field, with dust or without."""
    absorbance = specks((phase.shape[0], phase.shape[1])) if dusty else np.zeros_like(phase)
    return Field(phase=phase, planes=defocus_pair_of(phase, absorbance, microscope, defocus_um), microscope=microscope, defocus_um=defocus_um)


def fields(dusty: bool) -> dict[str, list[Field]]:
    """Four views of one measured cell, and a field of many simulated cells."""
    series = np.load(DATA / "qpi/phase_gt/hl60_qlsi_series/hl60_qlsi_140.npz")["phase"].astype(np.float64)
    one = [field_of(series[frame], hl60.MICROSCOPE, hl60.DEFOCUS_UM, dusty) for frame in hl60.FRAMES]
    return {"HL60": one, "cells": [field_of(cell_phase(), CELL_MICROSCOPE, CELL_DEFOCUS_UM, dusty)]}


def displaced(shift_px: float, magnification: float) -> Spoil:
    """The second plane moved down and left by `shift_px` / sqrt(2) each, and larger by a share, about the field's centre."""

    def spoil(planes: np.ndarray) -> np.ndarray:
        centre = (np.array(planes.shape[1:]) - 1) / 2
        scale = 1 / (1 + magnification)
        start = centre * (1 - scale) - np.array([1, -1]) * shift_px / np.sqrt(2)
        return np.stack([planes[0], affine_transform(planes[1].astype(float), np.full(2, scale), offset=start, order=SPLINE, mode="reflect")])

    return spoil


def lit(ramp: float = 0.0, bowl: float = 0.0, brightness: float = 0.0) -> Spoil:
    """The second plane brighter, by a share everywhere, from left to right, and from the middle to the corners."""

    def spoil(planes: np.ndarray) -> np.ndarray:
        y, x = (np.linspace(-1, 1, size) for size in planes.shape[1:])
        change = ramp * x[None, :] / 2 + bowl * (y[:, None] ** 2 + x[None, :] ** 2) / 2 + brightness
        return np.stack([planes[0], planes[1] * (1 + change)])

    return spoil


MISTAKES: dict[str, Spoil] = {
    "none": lit(),
    **{f"shift {size:g} px": displaced(size, 0.0) for size in (0.25, 0.5, 1.0)},
    **{f"magnification {share:.1%}": displaced(0.0, share) for share in (0.001, 0.01)},
    **{f"ramp {share:.1%}": lit(ramp=share) for share in (0.001, 0.005, 0.01)},
    "quadratic 0.5%": lit(bowl=0.005),
    "brightness 5%": lit(brightness=0.05),
}


def photographed(planes: np.ndarray, seed: int) -> np.ndarray:
    """Planes with photon noise, over background."""
    return np.random.default_rng(seed).poisson(planes.clip(min=0) * PHOTONS) / PHOTONS


def outcome(one: Field, planes: np.ndarray, defocus_um: tuple[float, float], align: Align, model: Checkpoint | None, samples: int) -> Outcome:
    """Reconstruct, and compare with the truth where the result may be trusted; without a piston."""
    if model is None:
        prepared = PhaseTwoShot().condition(planes, one.microscope, defocus_um, "auto", align)
        found, valid, estimated = levelled(prepared), prepared.valid, prepared.estimated
    else:
        image = ImageStack(array=planes, axes="PYX", pixel_um=one.microscope.pixel_um)
        optics = {"wavelength_um": one.microscope.wavelength_um, "medium_index": one.microscope.medium_index, "defocus_um": defocus_um}
        result = finish(RestoreRequest(image=image, model=model.card.name, samples=samples, align=align, **optics), model)
        found, valid, estimated = result.mean, result.valid, result.provenance.estimated["frames"][0]
    corrected = estimated["planes"]["corrected"] if "planes" in estimated else ()
    suspected = any("dz may be flipped" in warning for warning in plane_warnings([estimated]))
    return Outcome(rmse_rad=rmse(found[valid], one.phase[valid]), corrected=tuple(corrected), suspected=suspected)


def levelled(prepared: Conditioned) -> np.ndarray:
    """The phase [rad] that the model is given."""
    phase = prepared.baseline.double().numpy() * prepared.gain
    levelling = getattr(prepared.anchor, "levelling", None)
    return phase if levelling is None else levelling.apply(phase)


def row(what: str, given: list[Field], spoil: Spoil, model: Checkpoint | None, samples: int, flipped: bool = False) -> Row:
    """Both errors, root mean squares over the fields, and in how many of them something was taken back."""
    outcomes: dict[Align, list[Outcome]] = {"off": [], "auto": []}
    for seed, one in enumerate(given):
        planes = photographed(spoil(one.planes), seed)
        for align, found in outcomes.items():
            found.append(outcome(one, planes, one.defocus_um[::-1] if flipped else one.defocus_um, align, model, samples))
    before, after = (float(np.sqrt(np.mean([one.rmse_rad**2 for one in found]))) for found in outcomes.values())
    names = {name: sum(name in one.corrected for one in outcomes["auto"]) for name in ("shift_px", "magnification", "ramp", "quadratic", "brightness")}
    done = ", ".join(f"{name} {count}/{len(given)}" for name, count in names.items() if count) or "nothing"
    warned = f"; flip suspected {sum(one.suspected for one in outcomes['auto'])}/{len(given)}" if flipped else ""
    return Row(what=what, value=f"{before:.3f} -> {after:.3f}", bar=f"{done}{warned}")


def measure(model: Checkpoint | None = None, samples: int = 2, sets: tuple[str, ...] = ("HL60", "cells")) -> Iterator[Row]:
    """One row for each field and mistake; displacements once more with dust, which is what they harm."""
    for dusty in (False, True):
        for name, given in fields(dusty).items():
            if name not in sets:
                continue
            for mistake, spoil in MISTAKES.items():
                if not dusty or mistake.startswith(("none", "shift", "magnification")):
                    yield row(f"{name}{', dust' if dusty else ''}: {mistake}", given, spoil, model, samples)
            yield row(f"{name}{', dust' if dusty else ''}: dz sign", given, lit(), model, samples, flipped=True)


def false_alarms(count: int) -> Row:
    """Simulated training fields without a mistake: how many are changed, and for how many that is worse by a tenth or more."""
    changed = worse = better = 0
    for seed in range(count):
        pair = simulate_phase(seed, PhaseRanges())
        one = Field(phase=pair.phase, planes=pair.planes, microscope=pair.microscope, defocus_um=pair.defocus_um)
        after = outcome(one, pair.planes, pair.defocus_um, "auto", None, 0)
        if after.corrected:
            before = outcome(one, pair.planes, pair.defocus_um, "off", None, 0)
            changed += 1
            worse += after.rmse_rad > 1.1 * before.rmse_rad
            better += after.rmse_rad < before.rmse_rad / 1.1
    return Row(what=f"{count} simulated training fields: changed by auto", value=str(changed), bar=f"RMSE better by a tenth in {better}, worse in {worse}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="measure the mean of a model's samples, instead of what it is given")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=["HL60", "cells"], choices=["HL60", "cells"])
    parser.add_argument("--fields", type=int, default=40, help="simulated fields for false alarms; 0 for none")
    options = parser.parse_args()
    chosen = None if options.model is None else load_model(options.model)
    print_rows("RMSE [rad] as it is -> with align auto; what was taken back, in how many fields", measure(chosen, options.samples, tuple(options.sets)))
    if chosen is None and options.fields:
        print_rows("False alarms", [false_alarms(options.fields)])
