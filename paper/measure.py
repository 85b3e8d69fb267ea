"""What the benchmarks share: a measured row, the data folder, one protocol for intensities."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from napari_cvdm.baselines import Baseline
from napari_cvdm.core.request import ReconstructionRequest
from napari_cvdm.core.result import Reconstruction, finished
from napari_cvdm.models.checkpoint import Checkpoint, config_values
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import UNetConfig
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.tasks import TASKS

DATA = Path(__file__).parents[1].parent / "shared" / "data"
MATCHING_SIGMAS_PX = np.arange(0, 3.01, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: what was measured, what the bar asks, and whether it is met.

    None means that there is no bar.
    """

    what: str
    value: str
    bar: str = ""
    met: bool | None = None


def finish(
    request: ReconstructionRequest,
    model: Checkpoint | Baseline,
    earlier: Reconstruction | None = None,
) -> Reconstruction:
    """Drain a reconstruction, by a model or by a classical method."""
    return finished(reconstruct(request, model, earlier))


def tiny_model(task: str = "widefield-x2") -> Checkpoint:
    """A very small network with random weights for one fluorescence image.

    It has the card of widefield-x2.
    """
    shape = {"widths": (4, 8), "blocks": (1, 1)}
    denoiser, mean = UNetConfig(**shape, level_channels=4), UNetConfig(**shape, level_channels=0)  # type: ignore[arg-type]
    config = CVDMConfig(
        condition_channels=len(TASKS[task].channels),
        upsampling=TASKS[task].upsampling,
        denoiser=denoiser,
        mean=mean,
    )
    network, generator = CVDM(config).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if (
                parameter.ndim == 4
            ):  # fresh networks end in zeros, and whatever comes before them makes no difference
                parameter.copy_(
                    0.5
                    * torch.randn(parameter.shape, generator=generator)
                    / parameter[0].numel() ** 0.5
                )
    card = replace(
        load_model("widefield-x2").card, name="tiny", task=task, network=config_values(config)
    )
    return Checkpoint(network=network, card=card, sha256="0" * 64)


def rmse(found: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of the difference, with the mean of both removed (the piston of a phase)."""
    difference = found - found.mean() - (truth - truth.mean())
    return float(np.sqrt(np.mean(difference**2)))


def affine_fit(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """gain * found + offset with the least squared difference to the truth."""
    columns = np.stack([found.ravel(), np.ones(found.size)], axis=1)
    coefficients, *_ = np.linalg.lstsq(columns, truth.ravel(), rcond=None)
    return (columns @ coefficients).reshape(truth.shape)


def fitted_psnr(found: np.ndarray, truth: np.ndarray) -> float:
    """PSNR [dB] after an affine fit, for a truth scaled to 0..1."""
    return float(peak_signal_noise_ratio(truth, affine_fit(found, truth), data_range=1.0))


def matched_psnr(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The best `fitted_psnr` over Gaussian blurs of the result, and the blur's sigma [px].

    It compares both at the same resolution.
    """
    scores = [fitted_psnr(gaussian_filter(found, sigma), truth) for sigma in MATCHING_SIGMAS_PX]
    best = int(np.argmax(scores))
    return scores[best], float(MATCHING_SIGMAS_PX[best])


def print_rows(title: str, rows: Iterable[Row]) -> None:
    """One line for each row, as soon as it is measured."""
    print(title, flush=True)
    for row in rows:
        verdict = "" if row.met is None else ("  met" if row.met else "  MISSED")
        # two spaces between columns: paper.evidence reads them back
        print(f"  {row.what:<58}  {row.value:>26}  {row.bar}{verdict}", flush=True)


def table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table; without the column of the bars where there is none."""
    verdicts = {None: "", True: ": met", False: ": **missed**"}
    cells = [(row.what, row.value, row.bar + verdicts[row.met]) for row in rows]
    lines = [("measured", "value", "bar"), ("---",) * 3, *cells]
    shown = 3 if any(bar for _, _, bar in cells) else 2
    return "".join("| " + " | ".join(line[:shown]) + " |\n" for line in lines)
