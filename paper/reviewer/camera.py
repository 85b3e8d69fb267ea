"""What a camera and its files do to an image.

Saturation, dead pixels, JPEG, exposure, offset, uneven light, and whether flux is kept.
"""

from dataclasses import replace

import imagecodecs
import numpy as np

from napari_cvdm.simulate.structures import microtubules, mitochondria, reticulum
from paper.measure import Row
from paper.reviewer.bench import Bench, Case, Finding
from paper.reviewer.compare import compared
from paper.reviewer.figures import drawn
from paper.reviewer.measures import bias, kept_pixels
from paper.reviewer.scene import (
    GAIN_E_PER_COUNT,
    OFFSET_COUNTS,
    PHASE,
    SEED,
    WIDEFIELD,
    Scene,
    emitters_of,
    phase_scene,
    widefield_scene,
)

FULL_SCALE = 65535
SATURATED_PERCENTILE = 98.0
BAD_SHARE = 0.002
JPEG_LEVELS = (90, 50)
ADDED_COUNTS = 500
DARK_SHARE = 0.05  # of a blank pixel's light, forgotten to subtract
FALL_OF_LIGHT = 0.4
RAMPS_BETWEEN_PLANES = (0.001, 0.01)
FLUX_SEEDS = (6, 13)
FLUX_BAR, EXPOSURE_BAR = 0.02, 0.03


def saturated(bench: Bench) -> Finding:
    """The brightest 2 % cut off, at a level that the file states or does not state.

    It is stated as the top of the file's 16 bits. It is not stated for a 12-bit camera.
    """
    scene = bench.scene
    level = float(np.percentile(scene.array, SATURATED_PERCENTILE))
    factor = FULL_SCALE / level
    scale = 1.0 if bench.is_phase else factor
    full = np.round(scene.array * factor).clip(max=FULL_SCALE).astype(np.uint16)
    scenes = {
        "at the top of 16 bits": Scene(
            array=full,
            truth=scene.truth * scale,
            told=scene.told,
            threshold=scene.threshold * scale,
        ),
        "below the top of 16 bits": scene.spoiled(
            np.minimum(scene.array, np.floor(level)).astype(np.uint16)
        ),
    }
    finding = compared(bench, "Saturated", scenes)
    untouched, *cases = finding.cases
    cut = scene.array >= level
    marked = [
        Row(
            what=f"{case.name}: of the pixels cut off, marked",
            value=f"{marked_share(case, untouched, cut):.0%}",
        )
        for case in cases
    ]
    return replace(finding, rows=[*finding.rows, *marked])


def marked_share(case: Case, untouched: Case, cut: np.ndarray) -> float:
    """Share of the cut pixels (Y, X) or (2, Y, X) that the validity mask leaves out.

    The border band is left out; 0 where no pixel is cut.
    """
    factor = case.result.upsampling
    there = (
        np.kron(cut.reshape(-1, *cut.shape[-2:]).any(axis=0), np.ones((factor, factor), bool))
        & untouched.result.valid
    )
    return float(np.mean(~case.result.valid[there])) if there.any() else 0.0


def with_bad_pixels(array: np.ndarray, value: float) -> np.ndarray:
    """The same 0.2 % of the pixels of every plane at one value, at least one."""
    order = (
        np.random.default_rng(SEED)
        .permutation(array.shape[-2] * array.shape[-1])
        .reshape(array.shape[-2:])
    )
    bad = order < max(1, round(BAD_SHARE * order.size))
    return np.where(bad, value, array).astype(array.dtype)


def dead_pixels(bench: Bench) -> Finding:
    """Some pixels are dark or bright whatever falls on them."""
    array = bench.scene.array
    values = {"0.2 % dead": 0.0, "0.2 % hot, twice the brightest": 2.0 * float(array.max())}
    return compared(
        bench,
        "Dead pixels",
        {
            name: bench.scene.spoiled(with_bad_pixels(array, value))
            for name, value in values.items()
        },
    )


def through_eight_bits(array: np.ndarray, level: int | None) -> np.ndarray:
    """Counts after 8 bits between the darkest and the brightest pixel, and JPEG; float32.

    The JPEG has a level; None means no JPEG.
    """
    low, high = float(array.min()), float(array.max())
    step = (high - low) / 255
    bytes_ = np.round((array.astype(float) - low) / step).astype(np.uint8)
    planes = bytes_.reshape(-1, *array.shape[-2:])
    if level is not None:
        planes = np.stack(
            [
                imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(plane, level=level))
                for plane in planes
            ]
        )
    return (planes.reshape(array.shape) * step + low).astype(np.float32)


def jpeg(bench: Bench) -> Finding:
    """A file that went through 8 bits, and through JPEG."""
    names = {"8 bits": None, **{f"JPEG {level}": level for level in JPEG_LEVELS}}
    return compared(
        bench,
        "JPEG",
        {
            name: bench.scene.spoiled(through_eight_bits(bench.scene.array, level))
            for name, level in names.items()
        },
    )


def exposed(bench: Bench, factor: float) -> Scene:
    """The same field with more or less light."""
    if bench.is_phase:
        return phase_scene(bench.side, replace(PHASE, photons=PHASE.photons * factor))
    photons = WIDEFIELD.photons[0] * factor
    return widefield_scene(bench.side, replace(WIDEFIELD, photons=(photons, photons)))


def exposure(bench: Bench) -> Finding:
    """Twice the light doubles counts and leaves phase as it is; a tenth of it."""
    finding = compared(
        bench,
        "Exposure",
        {"twice the light": exposed(bench, 2.0), "a tenth of the light": exposed(bench, 0.1)},
    )
    wanted = 1.0 if bench.is_phase else 2.0
    ratio = response(finding.cases[1], bench.untouched)
    met = abs(ratio / wanted - 1) <= EXPOSURE_BAR
    what = (
        "twice the light: slope of the phase on the untouched one"
        if bench.is_phase
        else "twice the light: flux over the untouched"
    )
    return replace(
        finding,
        rows=[
            *finding.rows,
            Row(what=what, value=f"{ratio:.3f}", bar=f"{wanted:g} +- 3 %", met=met),
        ],
    )


def response(case: Case, untouched: Case) -> float:
    """Flux of one result over another's; of a phase the slope of the regression."""
    kept = kept_pixels(case)
    found, other = case.result.mean[kept].astype(float), untouched.result.mean[kept].astype(float)
    if case.result.unit == "rad":
        return float(np.cov(found, other)[0, 1] / max(float(np.var(other, ddof=1)), 1e-12))
    return float(found.sum() / other.sum())


def offset(bench: Bench) -> Finding:
    """A camera offset, or light that is not the specimen's."""
    if bench.is_phase:
        dark = bench.scene.array + DARK_SHARE * PHASE.photons
        return compared(
            bench,
            "Background offset",
            {
                (
                    f"{DARK_SHARE:.0%} of dark level not subtracted (phase reads "
                    f"{1 / (1 + DARK_SHARE) - 1:+.1%})"
                ): bench.scene.spoiled(dark)
            },
        )
    bright = replace(WIDEFIELD, background=(0.5, 0.5))
    scenes = {
        f"{ADDED_COUNTS} counts added": bench.scene.spoiled(bench.scene.array + ADDED_COUNTS),
        "ten times the background light": widefield_scene(bench.side, bright),
    }
    return compared(bench, "Background offset", scenes)


def ramp(bench: Bench) -> Finding:
    """Uneven light: across a widefield image, or between the two planes."""
    scene = bench.scene
    across = np.linspace(-0.5, 0.5, scene.array.shape[-1])
    if bench.is_phase:
        weights = np.array([0.0, 1.0])[:, None, None]
        scenes = {
            f"{share:.1%} between the planes": scene.spoiled(
                scene.array * (1 + share * weights * across)
            )
            for share in RAMPS_BETWEEN_PLANES
        }
        return compared(bench, "Ramp of the light", scenes)
    light, fine = (
        1 + FALL_OF_LIGHT * across,
        1 + FALL_OF_LIGHT * np.linspace(-0.5, 0.5, scene.truth.shape[-1]),
    )
    uneven = replace(
        scene, array=(scene.array - OFFSET_COUNTS) * light + OFFSET_COUNTS, truth=scene.truth * fine
    )
    return compared(bench, "Ramp of the light", {f"{FALL_OF_LIGHT:.0%} across the field": uneven})


def flux(bench: Bench) -> Finding:
    """Flux of several structures against the truth's and the input's signal above background.

    There are two fields of each structure, since one field may be easy.
    """
    structures = {
        "reticulum": reticulum,
        "microtubules": microtubules,
        "mitochondria": mitochondria,
    }
    cases = [
        bench.case(
            f"{name}, field {seed}", widefield_scene(bench.side, WIDEFIELD, emitters_of(draw), seed)
        )
        for name, draw in structures.items()
        for seed in FLUX_SEEDS
    ]
    rows = [
        row
        for case in cases
        for row in (
            flux_row(f"{case.name}, against the truth's", bias(case)),
            flux_row(f"{case.name}, against the input's", input_bias(case)),
        )
    ]
    return Finding(rows=rows, figure=drawn("Flux", cases))


def flux_row(what: str, away: float) -> Row:
    """One flux over another, minus 1, beside the bar."""
    return Row(
        what=what, value=f"{away:+.2%}", bar=f"within {FLUX_BAR:.0%}", met=abs(away) <= FLUX_BAR
    )


def input_bias(case: Case) -> float:
    """Mean of the result over the mean signal of the image, minus 1.

    The true offset and background light are subtracted.
    """
    kept = kept_pixels(case)
    dark = OFFSET_COUNTS + WIDEFIELD.photons[0] * WIDEFIELD.background[0] / GAIN_E_PER_COUNT
    signal = float((case.scene.array[kept[::2, ::2]] - dark).mean())
    return float(case.result.mean[kept].mean()) / signal - 1
