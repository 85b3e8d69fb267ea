"""The classical methods on real and measured data.

`python -m paper.classical [microlens] [cells] [hl60] [tsim]`, all by default.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import tifffile
from scipy.ndimage import zoom

from napari_cvdm.baselines import BASELINES, Baseline
from napari_cvdm.baselines.phase import UsTie
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import Reconstruction
from paper import hl60, tsim_er
from paper.measure import DATA, Row, finish, fitted_psnr, print_rows, rmse
from paper.microlens import measured_planes as measured_microlens

CELLS = DATA / "qpi/sephace_brightfield"
CELL_STAGE_UM = (
    1341.95,
    1352.25,
    1362.00,
)  # below, in and above focus; larger stage z is negative defocus
REGULARISATIONS = tuple(float(r) for r in 10.0 ** np.arange(-10, 0.1, 1))
ROUNDS = (1, 2, 3, 4, 5, 6)
CELL_PERIODS_PX = (
    25.0,
    200.0,
)  # shorter than what drifts across the field, longer than a pixel's noise
OIL_OBJECTIVE = {
    "wavelength_um": 0.52,
    "medium_index": 1.518,
    "na": 1.4,
}  # not recorded with the T-SIM images


def solved(
    method: Baseline, planes: np.ndarray, pixel_um: float, **optics: object
) -> Reconstruction:
    """A method on one frame."""
    image = ImageStack(
        array=planes,
        axes="PYX" if planes.ndim == 3 else "YX",
        pixel_um=pixel_um,
        source="benchmark",
    )
    return finish(ReconstructionRequest(image=image, model=method.name, **optics), method)  # type: ignore[arg-type]


def in_band(
    found: np.ndarray, reference: np.ndarray, periods_px: tuple[float, float]
) -> tuple[float, float]:
    """Coherence of two images (Y, X) between two periods, and the slope of one on the other.

    The slope is that of the first image on the second.
    """
    spectra = [np.fft.fft2(image) for image in (found, reference)]
    frequency = np.hypot(np.fft.fftfreq(found.shape[0])[:, None], np.fft.fftfreq(found.shape[1]))
    ours, theirs = (
        spectrum[(frequency >= 1 / periods_px[1]) & (frequency < 1 / periods_px[0])]
        for spectrum in spectra
    )
    cross, powers = (
        np.vdot(theirs, ours),
        [np.vdot(spectrum, spectrum).real for spectrum in (ours, theirs)],
    )
    return float(abs(cross) / np.sqrt(powers[0] * powers[1])), float(cross.real / powers[1])


def beside(
    what: str, found: Reconstruction, reference: np.ndarray, bar: float | None = None
) -> Row:
    """Correlation with a stored result and slope on it, where both can be trusted."""
    kept = found.valid
    alike = float(np.corrcoef(found.mean[kept], reference[kept])[0, 1])
    slope = float(np.polyfit(reference[kept], found.mean[kept], 1)[0])
    asked = "" if bar is None else f"correlation >= {bar:g}"
    return Row(
        what=f"{what}: correlation with the stored US-TIE, slope",
        value=f"{alike:.4f}, {slope:.3f}",
        bar=asked,
        met=None if bar is None else alike >= bar,
    )


def microlens() -> list[Row]:
    """The US-TIE authors' own microlens array."""
    planes, reference = measured_microlens()
    optics = {"wavelength_um": 0.55, "medium_index": 1.0, "defocus_um": (0.0, -1.0)}
    rows = [
        beside(f"microlens, {name}", solved(BASELINES[name], planes, 0.2325, **optics), reference)
        for name in ("us-tie", "wotf")
    ]
    as_they_come = {
        **optics,
        "background": "none",
    }  # of the same lamp: the authors make no means equal
    rounds = {
        n: solved(UsTie(iterations=n), planes / planes[0].mean(), 0.2325, **as_they_come)
        for n in ROUNDS
    }
    alike = {
        n: float(np.corrcoef(found.mean[found.valid], reference[found.valid])[0, 1])
        for n, found in rounds.items()
    }
    best = max(alike, key=lambda n: alike[n])
    rows.append(
        Row(
            what="microlens, us-tie, planes as they come: correlation by rounds",
            value=", ".join(f"{n}: {r:.4f}" for n, r in alike.items()),
        )
    )
    return [
        *rows,
        beside(
            f"microlens, us-tie, planes as they come, {best} rounds", rounds[best], reference, 0.999
        ),
    ]


def cells() -> list[Row]:
    """Brightfield cells and what the US-TIE authors' code made of them."""
    below, focus, above = CELL_STAGE_UM
    planes = np.stack(
        [tifffile.imread(CELLS / f"set1_fine_z{stage:.2f}.tif") for stage in (below, above)]
    )
    reference = tifffile.imread(CELLS / "set1_phase_USTIE_reference.tif").astype(np.float64)
    optics = {
        "wavelength_um": 0.55,
        "medium_index": 1.0,
        "defocus_um": (focus - below, focus - above),
    }
    rows = []
    for name in ("us-tie", "wotf"):
        found = solved(BASELINES[name], planes, 0.2004, **optics)
        coherence, slope = in_band(found.mean, reference, CELL_PERIODS_PX)
        rows.append(beside(f"cells, {name}", found, reference))
        what = (
            f"cells, {name}: coherence with the stored US-TIE and slope, periods "
            f"{CELL_PERIODS_PX[0]:g} to {CELL_PERIODS_PX[1]:g} px"
        )
        asked = (
            {"bar": "0.99; 0.95 to 1.05", "met": coherence >= 0.99 and abs(slope - 1) <= 0.05}
            if name == "us-tie"
            else {}
        )
        rows.append(Row(what=what, value=f"{coherence:.4f}, {slope:.3f}", **asked))  # type: ignore[arg-type]
    return rows


def phase_errors(
    method: Baseline, planes: Iterable[np.ndarray], truths: Iterable[np.ndarray]
) -> float:
    """Mean RMSE [rad] over fields, piston removed."""
    optics = {
        "wavelength_um": hl60.MICROSCOPE.wavelength_um,
        "medium_index": hl60.MICROSCOPE.medium_index,
        "defocus_um": hl60.DEFOCUS_UM,
    }
    pairs = zip(planes, truths, strict=True)
    return float(
        np.mean(
            [
                rmse(solved(method, pair, hl60.MICROSCOPE.pixel_um, **optics).mean, truth)
                for pair, truth in pairs
            ]
        )
    )


def hl60_cell() -> list[Row]:
    """Both phase methods at every regularisation, on simulated planes of a measured cell.

    The planes are at +-1 um and have 1e4 photons.
    """
    phases = hl60.measured_phases()
    truths = list(phases.values())
    planes = [hl60.measured_planes(truth, frame) for frame, truth in phases.items()]
    rows = []
    for name in ("us-tie", "wotf"):
        default = BASELINES[name]
        errors = {
            r: phase_errors(replace(default, regularisation=r), planes, truths)
            for r in REGULARISATIONS
        }
        best = min(errors, key=lambda r: errors[r])
        scan = ", ".join(f"{r:.0e} {error:.3f}" for r, error in errors.items())
        rows.append(
            Row(
                what=f"HL60, {name}: RMSE at its default [rad]",
                value=f"{phase_errors(default, planes, truths):.4f}",
            )
        )
        rows.append(
            Row(
                what=f"HL60, {name}: RMSE at its best regularisation [rad]",
                value=f"{errors[best]:.4f} at {best:.0e}",
            )
        )
        rows.append(Row(what=f"HL60, {name}: RMSE by regularisation [rad]", value=scan))
    return rows


def tsim(fields: tsim_er.Fields) -> list[Row]:
    """Richardson-Lucy and cubic upsampling against SIM, on the SIM's grid.

    The optics are assumed.
    """
    rows, gains = [], []
    for number, (widefield, sim) in fields.items():
        truth = tsim_er.scaled_truth(sim)
        found = solved(
            BASELINES["richardson-lucy"], widefield, tsim_er.ASSUMED_PIXEL_UM, **OIL_OBJECTIVE
        )
        cubic = np.asarray(zoom(widefield, 2, order=3, grid_mode=True, mode="nearest"))
        scores = [
            fitted_psnr(tsim_er.on_its_grid(image.astype(np.float64)), truth)
            for image in (cubic, found.mean)
        ]
        used = found.provenance.estimated["frames"][0]  # type: ignore[index]
        gains.append(scores[1] - scores[0])
        what = f"T-SIM ER {number}: cubic, Richardson-Lucy [dB] (iterations, chi^2)"
        rows.append(
            Row(
                what=what,
                value=(
                    f"{scores[0]:.2f}, {scores[1]:.2f} ({used['iterations']}, "
                    f"{used['chi_squared']:.2f})"
                ),
            )
        )
    return [
        *rows,
        Row(
            what="T-SIM ER: mean gain of Richardson-Lucy over cubic [dB]",
            value=f"{np.mean(gains):+.2f}",
        ),
    ]


PARTS: dict[str, Callable[[], list[Row]]] = {
    "microlens": microlens,
    "cells": cells,
    "hl60": hl60_cell,
    "tsim": lambda: tsim(tsim_er.measured_fields()),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {' '.join(unknown)}; known are {', '.join(PARTS)}")
    for name in chosen:
        print_rows(f"Classical methods: {name}", PARTS[name]())
