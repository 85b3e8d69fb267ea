"""Richardson-Lucy deconvolution of a widefield image, stopped at the photon noise."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
from torch import Tensor

from napari_cvdm.baselines.method import Answer, Baseline, Solving
from napari_cvdm.core.intensity import IntensityScale, fill_unmeasured, measured_pixels
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.statistics import interior
from napari_cvdm.tasks.deconvolved import Deconvolution, chi_squared, estimate_lens, find_lens
from napari_cvdm.tasks.fluorescence import WidefieldX2, above_dark, measure_camera
from napari_cvdm.tasks.task import BORDER_PX, saturated

MOST_ITERATIONS = 100
LARGEST_ITERATIONS = 1000
# About even in the logarithm, since late steps change little.
CHECKED_AFTER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 150, 220, 330, 500, 700)
SETTLED = 0.99  # chi^2 that falls by less than one percent has stopped falling


@dataclass(frozen=True, kw_only=True)
class RichardsonLucy(Baseline):
    """Richardson-Lucy (Richardson 1972, Lucy 1974) with the PSF of the microscope.

    See `tasks.deconvolved.deconvolve`. The discrepancy decides when to stop. The method stops at
    the first of `CHECKED_AFTER` iterations where chi^2 is at most 1, or before the first where
    chi^2 falls by less than one percent.

    Parameters
    ----------
    iterations : int
        Largest number of iterations, 1 to 1000.
    """

    name: ClassVar[str] = "richardson-lucy"
    title: ClassVar[str] = "Deconvolution of one widefield fluorescence image by Richardson-Lucy"
    task: ClassVar[str] = "widefield-x2"
    parameter: ClassVar[str] = "iterations"
    source: ClassVar[str] = (
        "Richardson, J. Opt. Soc. Am. 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974); "
        "Snyder et al., J. Opt. Soc. Am. A 10, 1014 (1993)"
    )
    resolution: ClassVar[str] = (
        "as far as the photons carry; beyond the diffraction limit only for isolated points"
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Haze out of focus stays.",
        "Noise turns into grains when it runs for long.",
    )
    iterations: int = MOST_ITERATIONS

    def __post_init__(self) -> None:
        self.check_count("iterations", 1, LARGEST_ITERATIONS)

    def solve(self, frame: np.ndarray, plan: Plan) -> Solving:
        """Deconvolve one frame (1, Y, X)."""
        task = WidefieldX2()
        yield "computing the PSF"
        seen = np.where(measured_pixels(frame[0]), frame[0], np.nan)
        counts, level = above_dark(seen, plan.background)
        lens = find_lens(plan, task.upsampling) or estimate_lens(
            [fill_unmeasured(counts)], task.upsampling
        )
        camera = measure_camera(frame, counts, level)
        problem = Deconvolution.of_frame(
            counts - level, lens, camera, IntensityScale.fit(counts, level).scale, task.upsampling
        )
        valid = interior(counts.shape, BORDER_PX) & ~saturated(frame) & np.isfinite(counts)
        canvas, chi, used = yield from _until_only_noise_is_left(problem, valid, self.iterations)
        found: dict[str, object] = {
            "dark_level": level,
            "read_variance": camera.read_variance,
            "counts_per_electron": camera.gain,
            "cutoff_px": lens.cutoff_px,
            "optics": lens.source,
            "unmeasured_share": float((~np.isfinite(counts)).mean()),
            "iterations": used,
            "chi_squared": chi,
        }
        return Answer(image=problem.in_frame(canvas).numpy(), valid=valid, estimated=found)


def _until_only_noise_is_left(
    problem: Deconvolution, valid: np.ndarray, most: int
) -> Generator[str, None, tuple[Tensor, float, int]]:
    """The estimate on the canvas, its chi^2 in the frame, and how many iterations made it."""
    counts = (*(count for count in CHECKED_AFTER if count < most), most)
    best: tuple[Tensor, float, int] | None = None
    yield f"iteration 1 of at most {most}"
    for count, canvas in islice(problem.steps(), most):
        if count not in counts:
            yield f"iteration {count + 1} of at most {most}"
            continue
        misfit, _ = problem.compare(canvas)
        chi = chi_squared(misfit, valid)
        if best is not None and chi > SETTLED * best[1]:
            return best
        best = canvas, chi, count
        if chi <= 1 or count == most:
            break
        yield f"iteration {count + 1} of at most {most}"
    assert best is not None  # the last count is always tried
    return best
