"""Parts of a phase field that is never whole in memory, prepared so that they fit together.

Low spatial frequencies come from an inversion of the whole field, binned. The others come from an
inversion of each part with its surroundings. A Gaussian separates the two.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import ceil

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_cvdm.core.microscope import Microscope
from napari_cvdm.core.noise import FRAME_SEED_STRIDE
from napari_cvdm.core.plan import Plan
from napari_cvdm.core.result import name_stages
from napari_cvdm.inversion import Fit, fit_local_prior, flatten_background
from napari_cvdm.physics.camera import inverse_variance
from napari_cvdm.physics.forward_model import fresnel_number
from napari_cvdm.tasks.defocused_planes import (
    check_divided,
    check_positive,
    equalised_levels,
    usable_planes,
)
from napari_cvdm.tasks.phase_input import (
    SMALLEST_STRENGTH_RAD,
    FieldNumbers,
    assemble_input,
    network_window,
)
from napari_cvdm.tasks.phase_inversion import (
    PhaseMaps,
    find_background,
    fit_surrounded,
    invert_surrounded,
    phase_maps,
)
from napari_cvdm.tasks.phase_posterior import Drawing, PhasePosterior, PosteriorDraws, level_draw
from napari_cvdm.tasks.task import Background, FrameReader, NetworkInput, SampledPlane, fitting

SURVEYED_WINDOWS = 8
ALL_USABLE = 1 - 1e-9  # of the pixels of a bin, but for rounding
LARGEST_COARSE_PX = 768
# Standard deviation of the Gaussian that parts the scales; at least two coarse pixels.
PARTING_PX = 16.0
SMALLEST_SHARE = 1e-3  # of a Gaussian within the frame; the networks do not see so far out
DRAW_STRIDE = FRAME_SEED_STRIDE // 2  # streams of a frame: two samples share one draw
_MICROSCOPE = ("pixel_um", "wavelength_um", "medium_index")


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseBlocks:
    """Prepares parts of one phase field with what must be global known.

    Parameters
    ----------
    defocus_um : tuple of float
        In the order of the file.
    levels : ndarray of shape (P,)
        Blank-field intensity of each plane; 1 where an image of it is given.
    coarse : ndarray of shape (y, x)
        Phase of the binned whole [rad].
    step : int
        Pixels binned into one.
    zero : float
        Phase of the coarse whole that is called zero [rad].
    draws : ndarray of shape (K, y, x)
        Draws about the coarse whole, levelled as it is [rad]: one for two samples.
    """

    microscope: Microscope
    defocus_um: tuple[float, ...]
    condenser_na: float
    levels: np.ndarray = field(repr=False)
    coarse: np.ndarray = field(repr=False)
    step: int
    zero: float
    field_numbers: FieldNumbers
    draws: np.ndarray = field(repr=False)
    seed: int

    @property
    def level(self) -> float:
        """Median of the output over the field [rad]."""
        return self.field_numbers.level - self.zero

    def maps(
        self, frame: np.ndarray, background: Background, first: tuple[int, int]
    ) -> Generator[str, None, tuple[PhaseMaps, Fit, PosteriorDraws, np.ndarray]]:
        """Invert a part of a field, step by step.

        Its low spatial frequencies are those of the coarse whole. `frame` (P, Y, X) is in the order
        of `defocus_um`, and `first` is the part's first pixel in the field. The results are the
        maps, the fit of the part alone, draws about it, and the usable pixels (Y, X).
        """
        ratio, order = _over_levels(frame, background, self.levels), np.argsort(self.defocus_um)
        usable = usable_planes(frame, ratio)[order]
        data = np.where(usable, ratio[order], 1.0)
        weight = torch.from_numpy(inverse_variance(data, usable)).float()
        rising = sorted(self.defocus_um)
        estimate = yield from invert_surrounded(
            torch.from_numpy(data).float(), weight, rising, self.microscope, self.condenser_na
        )
        draws = PosteriorDraws(estimate.fit, self.seed, first)
        drawn = yield from draws.first()
        own = phase_maps(estimate, max(fresnel_number(z, self.microscope) for z in rising), drawn)
        phase = own.phase + self.lacking(self.coarse, own.phase, own.frame, first)
        return replace(own, phase=phase), estimate.fit, draws, np.asarray(usable.all(axis=0))

    def prepare(
        self, frame: np.ndarray, background: Background, first: tuple[int, int]
    ) -> Generator[str, None, NetworkInput]:
        """A part of shape (P, Y, X) whose first pixel is `first`, step by step."""
        maps, fit, draws, usable = yield from self.maps(frame, background, first)
        window, numbers = network_window(maps), self.field_numbers
        estimate = (maps.phase[window] - numbers.level).astype(np.float32)
        posterior = PhasePosterior(
            fit=fit,
            window=window,
            estimate=estimate,
            result=estimate + np.float32(self.level),
            draws=PartDraws(blocks=self, own=draws, frame=maps.frame, first=first),
        )
        return assemble_input(maps, numbers, posterior, usable, {}, first)

    def lacking(
        self,
        coarse: np.ndarray,
        own: np.ndarray,
        frame: tuple[slice, slice],
        first: tuple[int, int],
    ) -> np.ndarray:
        """Low spatial frequencies that a part lacks, on the part's canvas (H, W).

        They are those of an image of the coarse whole less those of the part. The difference is
        averaged over the frame alone, so that nothing is lost where the frame ends.
        """
        sigma = max(PARTING_PX, 2.0 * self.step)
        rows, columns = (
            # Between pixel centres: a coarse pixel covers `step` fine ones.
            (np.arange(size) - part.start + start + 0.5) / self.step - 0.5
            for size, part, start in zip(own.shape, frame, first, strict=True)
        )
        inside = np.zeros(own.shape)
        inside[frame] = 1
        difference = (_bilinear(coarse, rows, columns) - own) * inside
        share = np.maximum(gaussian_filter(inside, sigma), SMALLEST_SHARE)
        return np.asarray(gaussian_filter(difference, sigma) / share, dtype=np.float32)

    def numbers(self) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        return {
            "microscope": np.array([getattr(self.microscope, name) for name in _MICROSCOPE]),
            "na": np.array([] if self.microscope.na is None else [self.microscope.na]),
            "defocus_um": np.array(self.defocus_um),
            "condenser_na": np.asarray(self.condenser_na),
            "levels": self.levels,
            "coarse": self.coarse,
            "step": np.asarray(self.step),
            "zero": np.asarray(self.zero),
            "field": np.array(list(asdict(self.field_numbers).values())),
            "draws": self.draws,
            "seed": np.asarray(self.seed),
        }

    @classmethod
    def of_numbers(cls, kept: Mapping[str, np.ndarray]) -> "PhaseBlocks":
        """The inverse of `numbers`."""
        names = [entry.name for entry in fields(FieldNumbers)]
        na = kept["na"].tolist()
        return cls(
            microscope=Microscope(
                **dict(zip(_MICROSCOPE, kept["microscope"].tolist(), strict=True)),
                na=na[0] if na else None,
            ),
            defocus_um=tuple(kept["defocus_um"].tolist()),
            condenser_na=float(kept["condenser_na"]),
            levels=kept["levels"],
            coarse=kept["coarse"],
            step=int(kept["step"]),
            zero=float(kept["zero"]),
            field_numbers=FieldNumbers(**dict(zip(names, kept["field"].tolist(), strict=True))),
            draws=kept["draws"],
            seed=int(kept["seed"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartDraws:
    """Draws of a part, whose low spatial frequencies are those of the draws of the coarse whole.

    `frame` is the part on its canvas.
    """

    blocks: PhaseBlocks = field(repr=False)
    own: PosteriorDraws = field(repr=False)
    frame: tuple[slice, slice]
    first: tuple[int, int]

    def draw(self, stream: int) -> Drawing:
        """Difference from the estimate [rad] on the part's canvas, (H, W)."""
        own = yield from self.own.draw(stream)
        # All parts of a frame share its coarse draws, so that they fit together.
        drawn = self.blocks.draws[stream % DRAW_STRIDE]
        return own + self.blocks.lacking(drawn, own, self.frame, self.first)


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """An image at rows and columns, continued by its border pixels."""

    def weights(size: int, at: np.ndarray) -> np.ndarray:
        low = np.clip(np.floor(at), 0, max(0, size - 2)).astype(int)
        share = np.clip(at - low, 0, 1)
        matrix = np.zeros((len(at), size))
        matrix[np.arange(len(at)), low] += 1 - share
        matrix[np.arange(len(at)), np.minimum(low + 1, size - 1)] += share
        return matrix

    return np.asarray(weights(image.shape[0], rows) @ image @ weights(image.shape[1], columns).T)


def _over_levels(frame: np.ndarray, background: Background, levels: np.ndarray) -> np.ndarray:
    """Planes (P, Y, X) over a blank-field image or their levels: float64."""
    over = levels[:, None, None] if isinstance(background, str) else background
    return np.asarray(frame.astype(np.float64) / over)


def blank_levels(
    planes: Sequence[SampledPlane], background: Background, shape: tuple[int, int]
) -> np.ndarray:
    """Blank-field intensity (P,) of planes from their samples, as `over_background` finds it.

    RequestError where that raises it.
    """
    if not isinstance(background, str):
        blank = np.broadcast_to(np.float32(0), (len(planes), *shape))
        check_positive(fitting(background, blank))
        return np.ones(len(planes))
    pooled = np.concatenate([plane.pixels.ravel() for plane in planes])
    if background == "none":
        check_divided(pooled)
        return np.ones(len(planes))
    means = np.array([plane.mean for plane in planes])
    levels = equalised_levels(float(np.nanmedian(pooled)), means)
    check_positive(levels)
    return levels


def measure_phase_statistics(
    planes: Sequence[SampledPlane], plan: Plan, reader: FrameReader
) -> Generator[str, None, PhaseBlocks]:
    """What must be global of one field, from planes over the blank field; step by step."""
    microscope, defocus_um = plan.microscope, plan.positions_um
    levels = blank_levels(planes, plan.background, reader.shape)
    step = max(1, ceil(max(reader.shape) / LARGEST_COARSE_PX))
    order = np.argsort(defocus_um)
    parts = [_binned_band(frame, part, levels, step) for frame, part in reader.bands(step)]
    binned, usable = (np.concatenate(bands, axis=1)[order] for bands in zip(*parts, strict=True))
    wider = replace(microscope, pixel_um=microscope.pixel_um * step)
    # Binned pixels have less noise, so it is estimated anew.
    weight = torch.from_numpy(inverse_variance(binned, usable)).float()
    whole = yield from fit_surrounded(
        torch.from_numpy(binned).float(), weight, sorted(defocus_um), wider, plan.condenser_na
    )
    flat = yield from name_stages("flat background", flatten_background(whole))
    fit = yield from fit_local_prior(flat)
    coarse = fit.phase.numpy()
    zero, background, _ = find_background(coarse)
    draws, first_stream = PosteriorDraws(fit, plan.seed), reader.frame_number * DRAW_STRIDE
    levelled = []
    # Samples 2 k and 2 k + 1 share a draw, with opposite signs.
    for number in range(ceil(plan.samples / 2)):
        drawn = yield from name_stages(f"draw {number + 1}", draws.draw(first_stream + number))
        levelled.append(level_draw(drawn, fit.model.frame, background)[fit.model.frame])
    # `maps` needs none of them; those of the field follow from its windows.
    empty = FieldNumbers(
        level=0, strength=1, width=1, pull=1, pull_absorption=1, noise=1, fresnel=1
    )
    blocks = PhaseBlocks(
        microscope=microscope,
        defocus_um=defocus_um,
        condenser_na=plan.condenser_na,
        levels=levels,
        coarse=coarse,
        step=step,
        zero=zero,
        field_numbers=empty,
        draws=np.stack(levelled),
        seed=plan.seed,
    )
    seen = []
    for number, (frame, part, first, _) in enumerate(reader.windows(SURVEYED_WINDOWS), start=1):
        maps, *_ = yield from name_stages(f"window {number}", blocks.maps(frame, part, first))
        seen.append(FieldNumbers.measure(maps))
    return replace(blocks, field_numbers=_pooled(seen, coarse))


def _pooled(seen: Sequence[FieldNumbers], coarse: np.ndarray) -> FieldNumbers:
    """Numbers of a field: root mean squares over windows, but level and strength of `coarse`."""
    mean = {
        entry.name: float(np.sqrt(np.mean([getattr(one, entry.name) ** 2 for one in seen])))
        for entry in fields(FieldNumbers)
    }
    # A window is too small for low frequencies, which may be most of the phase.
    strength = float(np.hypot(np.std(coarse), SMALLEST_STRENGTH_RAD))
    return FieldNumbers(**{**mean, "level": float(np.median(coarse)), "strength": strength})


def _binned_band(
    frame: np.ndarray, background: Background, levels: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """A band over its background, binned, and where every pixel of a bin was measured.

    Both have the shape (P, y, x). Other bins of the band are 1.
    """
    ratio = _over_levels(frame, background, levels)
    usable = _binned(usable_planes(frame, ratio).astype(np.float64), step) > ALL_USABLE
    return np.where(usable, _binned(np.where(np.isfinite(ratio), ratio, 1.0), step), 1.0), usable


def _binned(planes: np.ndarray, step: int) -> np.ndarray:
    """Means over step x step pixels, what is left over at the edges dropped: (P, y, x)."""
    height, width = (size // step * step for size in planes.shape[1:])
    blocks = planes[:, :height, :width].reshape(
        len(planes), height // step, step, width // step, step
    )
    return np.asarray(blocks.mean(axis=(2, 4)))
