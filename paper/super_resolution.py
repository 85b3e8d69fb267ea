"""Super-resolution beside Richardson-Lucy.

`python -m paper.super_resolution [PART ...]`; the parts are at the end of this file, all by
default.

Images are registered to the truth before they are scored, and blurred to its resolution where that
scores better. The real images are those of shared/data. Textures and fields of the flux are
simulated with seeds that no training has.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tifffile
import torch
from scipy.ndimage import gaussian_filter, shift, zoom
from skimage.metrics import structural_similarity
from skimage.registration import phase_cross_correlation

from napari_cvdm.core.intensity import dark_level
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.core.result import finished
from napari_cvdm.evaluation.pair_sets import Sampling
from napari_cvdm.evaluation.resolution import two_point_resolution
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.registry import load_model
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.samples import reticulum
from napari_cvdm.simulate.scenes import UPSAMPLING, simulate_widefield
from napari_cvdm.simulate.structures import draw_texture
from napari_cvdm.training.measured import bin_means
from paper import tsim_er
from paper.classical import OIL_OBJECTIVE
from paper.measure import DATA, Row, affine_fit, finish, fitted_psnr, matched_psnr, print_rows

BORDER_PX = 8
REGISTERED_SIGMA_PX = 2.0
DL_SIM_PIXEL_UM = 0.06  # the files are upsampled twofold, to 30 nm
AIRYSCAN_PIXEL_UM = 0.0426
SEED = 8_000_000  # beyond those of training, calibration and evaluation
FIELDS = 6
LEAST_GAIN_DB = 0.5
LARGEST_LOSS = 0.02  # of the flux
LARGEST_EXPOSURE_ERROR = 0.01
LARGEST_SECONDS = 6.0
POINT_FIELDS = 4
MOST = 0.9  # of the pairs of a distance
FILTER_RINGS = 60  # of spatial frequency, from 0 to 1/2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RealField:
    """A measured image (Y, X), a sharper image of the same field, and the optics.

    The sharper image has a grid `factor` times finer.
    """

    name: str
    image: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    pixel_um: float
    factor: int = 2
    optics: dict[str, float]

    def request(self, model: str, samples: int) -> ReconstructionRequest:
        """What is asked for."""
        image = ImageStack(array=self.image, axes="YX", pixel_um=self.pixel_um, source=self.name)
        return ReconstructionRequest(image=image, model=model, samples=samples, **self.optics)  # type: ignore[arg-type]


def tsim_fields() -> Iterator[RealField]:
    """Endoplasmic reticulum.

    The optics are not recorded; those of a usual oil objective are assumed.
    """
    for number, (widefield, sim) in tsim_er.measured_fields().items():
        yield RealField(
            name=f"T-SIM ER {number}",
            image=widefield,
            truth=sim,
            pixel_um=tsim_er.ASSUMED_PIXEL_UM,
            optics=OIL_OBJECTIVE,
        )


def dlsim_fields() -> Iterator[RealField]:
    """Microtubules at two light levels.

    The published images are upsampled; pixels of the camera are their means over 2 x 2.
    """
    for name, light in (("HE", "normal"), ("LE", "low")):
        image = tifffile.imread(DATA / f"sr/dlsim_microtubule/{name}/{name}_15.tif").astype(
            np.float64
        )
        truth = tifffile.imread(
            DATA / f"sr/dlsim_microtubule/{name}R_sim_{light}_light.tif"
        ).astype(np.float64)
        yield RealField(
            name=f"dL-SIM {light} light",
            image=bin_means(image, UPSAMPLING),
            truth=truth,
            pixel_um=DL_SIM_PIXEL_UM,
            optics=OIL_OBJECTIVE,
        )


def airyscan_fields() -> Iterator[RealField]:
    """C. elegans: the sum over the detectors, and the reassigned image.

    To read the file, pylibCZIrw is needed.
    """
    try:
        from pylibCZIrw import czi
    except ImportError:
        return
    folder = DATA / "sr/airyscan_celegans"
    with czi.open_czi(str(folder / "celegans_airyscan.czi")) as document:
        detectors = [document.read(plane={"C": 0, "H": number})[..., 0] for number in range(32)]
    truth = tifffile.imread(folder / "reference_ism.tif").astype(np.float64)
    whole = np.sum(detectors, axis=0, dtype=np.float64)
    margin = (whole.shape[0] - truth.shape[0]) // 2
    optics = {
        "wavelength_um": 0.488,
        "medium_index": 1.518,
        "na": 1.4,
    }  # the pinhole is open: the excitation makes the image
    yield RealField(
        name="Airyscan",
        image=whole[margin:-margin, margin:-margin],
        truth=truth,
        pixel_um=AIRYSCAN_PIXEL_UM,
        factor=1,
        optics=optics,
    )


def register(image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image, moved onto the truth, and the truth, both without their borders."""
    smooth = (gaussian_filter(values, REGISTERED_SIGMA_PX) for values in (truth, image))
    offset, *_ = phase_cross_correlation(*smooth, upsample_factor=20, normalization=None)
    inner = (slice(BORDER_PX, -BORDER_PX),) * 2
    return shift(image, offset, order=3, mode="nearest")[inner], truth[inner]


def filter_to_truth(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image after the round filter that takes it closest to the truth.

    H = Re(T conj(F)) / |F|^2, summed over rings of spatial frequency.
    """
    found, wanted = np.fft.rfft2(image - image.mean()), np.fft.rfft2(truth - truth.mean())
    frequency = np.hypot(
        np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :]
    )
    ring = np.minimum(2 * FILTER_RINGS * frequency, FILTER_RINGS).astype(int)
    shared, power = (
        np.bincount(ring.ravel(), values.ravel())
        for values in ((wanted * found.conj()).real, np.abs(found) ** 2)
    )
    filtered: np.ndarray = (
        np.fft.irfft2(found * (shared / power)[ring], s=image.shape) + truth.mean()
    )
    return filtered


def score(image: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """PSNR [dB] and SSIM of an image at matched resolution.

    The image is registered to a truth within 0..1.
    """
    moved, wanted = register(image, truth)
    psnr, sigma = matched_psnr(moved, wanted)
    fitted = affine_fit(gaussian_filter(moved, sigma), wanted)
    return psnr, float(structural_similarity(wanted, fitted, data_range=1.0))


def real_rows(
    model: Checkpoint, fields: Iterator[RealField], bar: float, samples: int
) -> Iterator[Row]:
    """Cubic upsampling, Richardson-Lucy and the model against the sharper image."""
    for one in fields:
        truth = tsim_er.scaled_truth(one.truth)
        found = finish(one.request(model.card.name, samples), model)
        deconvolved = finish(one.request("richardson-lucy", 1), load_method("richardson-lucy"))
        images = [
            zoom(one.image, 2, order=3, grid_mode=True, mode="nearest"),
            deconvolved.mean,
            found.mean,
        ]
        scores = [
            score(
                (bin_means(image, UPSAMPLING) if one.factor == 1 else image).astype(np.float64),
                truth,
            )
            for image in images
        ]
        (_, (classical, classical_ssim), (ours, our_ssim)) = scores
        value = ", ".join(f"{psnr:.2f} ({ssim:.3f})" for psnr, ssim in scores)
        chi2 = (
            ""
            if found.forward is None or found.forward.chi2 is None
            else f", chi2 {found.forward.chi2:.2f}"
        )
        yield Row(
            what=f"{one.name}: cubic, Richardson-Lucy, {model.card.name} [dB (SSIM)]",
            value=f"{value}: {ours - classical:+.2f} dB{chi2}",
            bar=f">= {bar:+g} dB, SSIM not below",
            met=ours - classical >= bar and our_ssim >= classical_ssim - 0.001,
        )


def filtered_rows(model: Checkpoint, samples: int) -> Iterator[Row]:
    """Scores of Richardson-Lucy and of the model after their best filters.

    The filters are fitted with the truth, so the difference that is left is not one of sharpness.
    """
    for one in tsim_fields():
        truth, scores = tsim_er.scaled_truth(one.truth), []
        for name, how, count in (
            ("richardson-lucy", load_method("richardson-lucy"), 1),
            (model.card.name, model, samples),
        ):
            moved, wanted = register(
                finish(one.request(name, count), how).mean.astype(np.float64), truth
            )
            scores += [
                fitted_psnr(moved, wanted),
                fitted_psnr(filter_to_truth(moved, wanted), wanted),
            ]
        value = "{:.2f}, {:.2f}; {:.2f}, {:.2f}".format(*scores)
        yield Row(
            what=f"{one.name}: Richardson-Lucy, filtered; {model.card.name}, filtered [dB]",
            value=value,
        )


def texture_rows(model: Checkpoint, samples: int) -> Iterator[Row]:
    """RMSE on textures over that of Richardson-Lucy."""
    ranges = WidefieldRanges(photons=(100, 3000), field_px=128)
    for number in range(FIELDS):
        pair = simulate_widefield(
            SEED + number, ranges, lambda rng, side, pixel_um: draw_texture(rng, side)
        )
        request = simulated_request(pair.counts, pair.microscope, model.card.name, samples)
        ours, classical = (
            float(
                np.sqrt(
                    np.mean(
                        (finish(replace(request, model=name), how).mean - pair.truth)[inner()] ** 2
                    )
                )
            )
            for name, how in (
                (model.card.name, model),
                ("richardson-lucy", load_method("richardson-lucy")),
            )
        )
        yield Row(
            what=f"texture {number}: RMSE over Richardson-Lucy's",
            value=f"{ours / classical:.2f}",
            bar="<= 1",
            met=ours <= classical,
        )


def flux_rows(model: Checkpoint, samples: int) -> Iterator[Row]:
    """Total of the counts above the dark level, and what twice the exposure makes of it."""
    for number in range(FIELDS):
        pair = simulate_widefield(
            SEED + 100 + number, WidefieldRanges(photons=(100, 3000), field_px=128)
        )
        dark = np.full(pair.counts.shape, pair.camera.offset_counts)
        request = replace(
            simulated_request(
                pair.counts.astype(np.float64), pair.microscope, model.card.name, samples
            ),
            background=dark,
        )
        once = finish(request, model).mean
        doubled = replace(
            request, image=replace(request.image, array=2 * (pair.counts - dark) + dark)
        )
        light = float(pair.truth.mean()) + dark_level(pair.counts) - pair.camera.offset_counts
        kept, twice = (
            float(once.mean() / light),
            float(finish(doubled, model).mean.mean() / once.mean()),
        )
        met = abs(kept - 1) <= LARGEST_LOSS and abs(twice / 2 - 1) <= LARGEST_EXPOSURE_ERROR
        yield Row(
            what=f"flux {number}: kept, and at twice the counts",
            value=f"{kept:.3f}, {twice:.3f}",
            bar="1 +- 0.02, 2 +- 0.02",
            met=met,
        )


def inner() -> tuple[slice, slice]:
    """All but the border of an output."""
    return (slice(2 * BORDER_PX, -2 * BORDER_PX),) * 2


def simulated_request(
    counts: np.ndarray, microscope: Any, model: str, samples: int
) -> ReconstructionRequest:
    """A simulated image with its optics."""
    image = ImageStack(array=counts, axes="YX", pixel_um=microscope.pixel_um, source="simulated")
    return ReconstructionRequest(
        image=image,
        model=model,
        samples=samples,
        wavelength_um=microscope.wavelength_um,
        medium_index=microscope.medium_index,
        na=microscope.na,
    )


def point_rows(model: Checkpoint, samples: int) -> Iterator[Row]:
    """At which distance, and above it, most pairs of points are resolved (objective of NA 1.4).

    The truth has the resolution that the card states.
    """
    sampling = Sampling(samples=samples, device="cpu")
    found = finished(two_point_resolution(model, sampling, fields=POINT_FIELDS))
    for name, shares in found.apart.items():
        merged = [share < MOST for share in shares]
        first = max((number + 1 for number, one in enumerate(merged) if one), default=0)
        distances = [f"{1000 * one:.0f}" for one in found.separation_um[first:]]
        yield Row(
            what=f"{found.pairs} pairs a distance, 1,000 photons: {name}",
            value=f"{distances[0]} nm" if distances else "none",
        )


def speed_rows(model: Checkpoint, samples: int) -> Iterator[Row]:
    """Seconds for an image of 256 x 256 pixels on all threads; the second of two runs.

    Its deconvolution and its check are included.
    """
    request = ReconstructionRequest(
        image=reticulum(),
        model=model.card.name,
        samples=samples,
        wavelength_um=0.52,
        medium_index=1.518,
        na=1.4,
    )
    for precision in ("fp32", "bf16"):
        asked = replace(request, precision=precision)
        seconds = [finish(asked, model).provenance.timings_s["total"] for _ in range(2)][1]
        what = f"256 x 256, {samples} samples, {precision}, {torch.get_num_threads()} threads [s]"
        yield Row(what=what, value=f"{seconds:.1f}", bar="<= 6", met=seconds <= LARGEST_SECONDS)


PARTS: dict[str, Callable[[Checkpoint, int], Iterator[Row]]] = {
    "tsim": lambda model, samples: real_rows(model, tsim_fields(), LEAST_GAIN_DB, samples),
    "filtered": filtered_rows,
    "dlsim": lambda model, samples: real_rows(model, dlsim_fields(), 0.0, samples),
    "airyscan": lambda model, samples: real_rows(model, airyscan_fields(), 0.0, samples),
    "textures": texture_rows,
    "flux": flux_rows,
    "points": point_rows,
    "speed": speed_rows,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--model", default="widefield-x2")
    parser.add_argument("--samples", type=int, default=8)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {' '.join(unknown)}; known are {', '.join(PARTS)}")
    chosen = load_model(arguments.model)
    for name in arguments.parts or list(PARTS):
        print_rows(f"Super-resolution: {name}", PARTS[name](chosen, arguments.samples))
