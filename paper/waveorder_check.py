"""The weak-object transfer function against that of waveorder.

waveorder needs an environment of its own.

    python -m venv DIR && DIR/bin/pip install waveorder
    python -m paper.waveorder_check --python DIR/bin/python

Both solve the same planes with the same Tikhonov term; waveorder's condenser is nearly closed. Says
why where it cannot.
"""

import argparse
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.physics.tie import solve_wotf
from napari_cvdm.simulate.scenes import defocus_pair_of
from paper.measure import Row, print_rows

MICROSCOPE = Microscope(pixel_um=0.25, wavelength_um=0.55, medium_index=1.0, na=0.5)
DEFOCUS_UM = (-2.0, 2.0)
SHAPE = (256, 320)
PHASE_RAD = 0.05  # standard deviation: a weak object
GRAIN_PX = 4.0
CONDENSER_NA = 0.01
REGULARISATIONS = (1e-3, 1e-6)
BORDER_PX = 16
# What the other environment runs: no more than waveorder's own calls, on what lies in the file.
PEER = """
import sys, numpy as np, torch
from waveorder.models import isotropic_thin_3d as thin
given = np.load(sys.argv[1])
planes = torch.tensor(given["planes"], dtype=torch.float32)
optics = [float(given[name]) for name in ("pixel", "wavelength", "index", "condenser", "na")]
z = [float(value) for value in given["z"]]
transfer = thin.calculate_transfer_function(planes.shape[1:], optics[0], z, *optics[1:])
system = thin.calculate_singular_system(*transfer)
found = [thin.apply_inverse_transfer_function(planes, system, \
regularization_strength=float(r))[1].numpy() for r in given["regularisations"]]
np.save(sys.argv[2], np.stack(found))
"""


def weak_planes() -> tuple[np.ndarray, np.ndarray]:
    """A random weak phase (Y, X) [rad] and its two planes (2, Y, X), without noise."""
    field = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), GRAIN_PX, mode="wrap")
    phase = PHASE_RAD * (field - field.mean()) / field.std()
    return phase, defocus_pair_of(phase, np.zeros(SHAPE), MICROSCOPE, DEFOCUS_UM).astype(np.float64)


def waveorder_phases(planes: np.ndarray, python: str) -> np.ndarray:
    """The phase of planes by waveorder at each of `REGULARISATIONS`: (R, Y, X) [rad].

    RuntimeError with waveorder's last words where it fails.
    """
    with TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npy"
        optics = {
            "pixel": MICROSCOPE.pixel_um,
            "wavelength": MICROSCOPE.wavelength_um,
            "index": MICROSCOPE.medium_index,
            "na": MICROSCOPE.na,
        }
        np.savez(
            given,
            planes=planes,
            z=DEFOCUS_UM,
            condenser=CONDENSER_NA,
            regularisations=REGULARISATIONS,
            **optics,
        )
        try:
            done = subprocess.run(
                [python, "-c", PEER, str(given), str(found)],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise RuntimeError(f"{python} cannot be started ({error.strerror})") from None
        if done.returncode:
            raise RuntimeError(
                (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            )
        return np.load(found)


def slope(found: np.ndarray, reference: np.ndarray) -> float:
    """Of the regression of `found` on `reference`."""
    return float(np.polyfit(reference.ravel(), found.ravel(), 1)[0])


def measure(python: str) -> list[Row]:
    """Correlation with waveorder and slope on it, at each regularisation.

    The slope of both on the truth is given, too.
    """
    phase, planes = weak_planes()
    inside = (slice(BORDER_PX, -BORDER_PX),) * 2
    rows = []
    for r, theirs in zip(REGULARISATIONS, waveorder_phases(planes, python), strict=True):
        contrast = planes / planes.mean(axis=(1, 2), keepdims=True) - 1  # as waveorder does
        ours = solve_wotf(torch.from_numpy(contrast), DEFOCUS_UM, MICROSCOPE, r).numpy()
        alike = float(np.corrcoef(ours[inside].ravel(), theirs[inside].ravel())[0, 1])
        ratio = slope(theirs[inside], ours[inside])
        truth = (
            f"{slope(ours[inside], phase[inside]):.3f} / {slope(theirs[inside], phase[inside]):.3f}"
        )
        rows.append(
            Row(
                what=f"WOTF at {r:g}: correlation with waveorder",
                value=f"{alike:.4f}",
                bar=">= 0.99",
                met=alike >= 0.99,
            )
        )
        rows.append(
            Row(
                what=f"WOTF at {r:g}: waveorder's slope on ours",
                value=f"{ratio:.3f}",
                bar="0.95 to 1.05",
                met=abs(ratio - 1) <= 0.05,
            )
        )
        rows.append(Row(what=f"WOTF at {r:g}: slope on the truth, ours / waveorder's", value=truth))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python", default="python", help="the interpreter of an environment that has waveorder"
    )
    try:
        print_rows("Weak-object transfer function", measure(parser.parse_args().python))
    except RuntimeError as reason:
        print(
            f"skipped: {reason}. Make an environment for waveorder as the head of this file says."
        )
