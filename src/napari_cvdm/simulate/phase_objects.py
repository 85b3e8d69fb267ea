"""Random phase objects, smooth or structured, in arbitrary units to be scaled to radians.

Each function draws one object on a field of `shape` (Y, X) pixels from a NumPy generator and
returns float32.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def power_law_field(
    rng: np.random.Generator, shape: tuple[int, int], exponent: float | None = None
) -> np.ndarray:
    """Gaussian field with amplitude spectrum 1/f^b and unit deviation; b is 1 to 3 unless given."""
    slope = rng.uniform(1.0, 3.0) if exponent is None else exponent
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    radius[0, 0] = np.inf  # no mean
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * radius**-slope
    texture = np.fft.irfft2(spectrum, s=shape)
    return (texture / (texture.std() + 1e-12)).astype(np.float32)


def _local_grid(
    y: float, x: float, radius: float, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The pixels around a point, and their distances from it along Y and X."""
    rows, columns = (
        slice(max(0, int(centre - radius) - 1), min(size, int(centre + radius) + 2))
        for centre, size in zip((y, x), shape, strict=True)
    )
    dy = np.arange(rows.start, rows.stop)[:, None] - y
    dx = np.arange(columns.start, columns.stop)[None, :] - x
    return (rows, columns), dy, dx


def dead_leaves(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Opaque ellipses of all sizes on top of each other, with edges at every scale."""
    image = np.full(shape, rng.uniform(), np.float32)
    largest = rng.uniform(0.15, 0.5) * min(shape)
    for _ in range(int(rng.integers(20, 160))):
        # The density of radii falls as r^-3, which makes the image alike at every scale.
        radius = largest / np.sqrt(rng.uniform(1, (largest / 2.5) ** 2))
        y, x = rng.uniform(-radius, shape[0] + radius), rng.uniform(-radius, shape[1] + radius)
        where, dy, dx = _local_grid(y, x, radius, shape)
        angle, aspect = rng.uniform(0, np.pi), rng.uniform(1, 3)
        along = dy * np.sin(angle) + dx * np.cos(angle)
        across = dy * np.cos(angle) - dx * np.sin(angle)
        inside = along**2 + (aspect * across) ** 2 < radius**2
        image[where][inside] = rng.uniform()
    return image


def _outline(rng: np.random.Generator, angle: np.ndarray) -> np.ndarray:
    """Radius of a wobbly closed outline, about 1."""
    radius = np.ones_like(angle)
    for order in range(2, 7):
        height = rng.normal(0, 0.25 / order**1.5)
        radius += height * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return radius.clip(0.4, 1.8)


def _one_cell(
    rng: np.random.Generator, shape: tuple[int, int], radius: float, margin: float
) -> np.ndarray:
    y, x = (rng.uniform(margin, size - margin) for size in shape)
    dy, dx = np.arange(shape[0])[:, None] - y, np.arange(shape[1])[None, :] - x
    distance = np.hypot(dy, dx) / (radius * _outline(rng, np.arctan2(dy, dx)))
    height = (1 - distance**2).clip(min=0) ** rng.uniform(0.4, 1.2)
    texture = 1 + rng.uniform(0, 0.25) * power_law_field(rng, shape, rng.uniform(0.8, 1.8))
    offset = rng.uniform(-0.3, 0.3, 2) * radius
    nucleus_distance = np.hypot(dy - offset[0], dx - offset[1]) / (radius * rng.uniform(0.25, 0.6))
    dome, inside = np.sqrt((1 - nucleus_distance**2).clip(min=0)), height > 0
    nucleus = rng.uniform(-0.3, 0.5) * (nucleus_distance < 1) * dome ** rng.uniform(0.3, 1)
    image = height * texture.clip(min=0) + nucleus * inside
    return image + _granules(rng, shape, (y, x), radius) * inside


def _granules(
    rng: np.random.Generator, shape: tuple[int, int], centre: tuple[float, float], radius: float
) -> np.ndarray:
    dots = np.zeros(shape, np.float32)
    count = int(rng.integers(0, 40))
    rows = (centre[0] + rng.normal(0, 0.4 * radius, count)).astype(int)
    columns = (centre[1] + rng.normal(0, 0.4 * radius, count)).astype(int)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    dots[rows[inside], columns[inside]] = rng.exponential(1.0, int(inside.sum()))
    sigma = rng.uniform(0.8, 3.0)
    return rng.uniform(0, 0.25) * ndimage.gaussian_filter(dots, sigma) * 2 * np.pi * sigma**2


def cells(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One to twelve cells on a cell-free background.

    Each cell is a dome with a wobbly outline, a nucleus, granules and texture. In half of the
    images the cells keep clear of the frame, as when a user puts them into view.
    """
    radius = log_uniform(rng, 12, 0.45 * min(shape))
    count = int(rng.integers(1, 2 + int(min(11, 0.5 * shape[0] * shape[1] / (np.pi * radius**2)))))
    # A model that saw mostly cut cells shrank a whole one by a tenth.
    margin = min(1.3 * radius, 0.45 * min(shape)) if rng.uniform() < 0.5 else 0.0
    image = np.zeros(shape, np.float32)
    for _ in range(count):
        height = rng.uniform(0.5, 1.0)
        cell = _one_cell(rng, shape, radius * rng.uniform(0.8, 1.25), margin)
        image = np.maximum(image, height * cell)  # cells lie beside each other, not on top
    return image.astype(np.float32)


def beads(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Spheres: thickness 2 sqrt(R^2 - r^2), overlapping ones add up."""
    image = np.zeros(shape, np.float32)
    base = log_uniform(rng, 3, 40)
    for _ in range(int(rng.integers(1, 30))):
        radius = base * rng.uniform(0.7, 1.3)
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        where, dy, dx = _local_grid(y, x, radius, shape)
        image[where] += np.sqrt((radius**2 - dy**2 - dx**2).clip(min=0))
    return image


def gratings(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A sine or a binary grating in a window, at any angle."""
    period, angle = log_uniform(rng, 6, 120), rng.uniform(0, np.pi)
    phase = rng.uniform(0, 2 * np.pi)
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    wave = np.sin(2 * np.pi * (y * np.sin(angle) + x * np.cos(angle)) / period + phase)
    if rng.uniform() < 0.4:
        wave = np.sign(wave)
    window = (power_law_field(rng, shape, 2.0) > rng.uniform(-1, 0.5)).astype(np.float32)
    return (wave * ndimage.gaussian_filter(window, 3)).astype(np.float32)


def lens_array(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A square array of parabolic lenses, as in microlens arrays."""
    pitch, angle = rng.uniform(30, 140), rng.uniform(0, np.pi / 2)
    y = np.arange(shape[0])[:, None] - rng.uniform(0, pitch)
    x = np.arange(shape[1])[None, :] - rng.uniform(0, pitch)
    u, v = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
    du, dv = (u + pitch / 2) % pitch - pitch / 2, (v + pitch / 2) % pitch - pitch / 2
    radius = pitch / 2 * rng.uniform(0.7, 1.0)
    return (1 - (du**2 + dv**2) / radius**2).clip(min=0).astype(np.float32)


def tissue(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A tissue-like texture: patches of leaves, fibres and holes under a smooth thickness."""
    fibres = power_law_field(rng, shape, 1.2)
    stretched = ndimage.gaussian_filter1d(fibres, rng.uniform(2, 8), axis=int(rng.integers(2)))
    thickness = 1 + 0.4 * power_law_field(rng, shape, 2.0)
    holes = power_law_field(rng, shape, 1.8) > rng.uniform(-2, -0.5)
    image = dead_leaves(rng, shape) * rng.uniform(0.2, 1) + rng.uniform(0.1, 0.6) * stretched
    return (image * thickness.clip(min=0.1) * holes).astype(np.float32)


@cache
def read_photographs(folder: str) -> tuple[np.ndarray, ...]:
    """Every image of a folder, grey, 0 to 1, its shorter side at most 900 px.

    ValueError where there is none.
    """
    from skimage import color, io, transform

    images = []
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in PHOTOGRAPH_SUFFIXES:
            image = io.imread(path)
            is_grey = image.ndim != 3
            grey = image / np.iinfo(image.dtype).max if is_grey else color.rgb2gray(image[..., :3])
            scale = PHOTOGRAPH_PX / min(grey.shape)
            if scale < 1:
                grey = transform.rescale(grey, scale, anti_aliasing=True)
            images.append(grey.astype(np.float32))
    if not images:
        raise ValueError(
            f"{folder}: no photograph in it; "
            f"files ending in {', '.join(PHOTOGRAPH_SUFFIXES)} are read."
        )
    return tuple(images)


def photograph(rng: np.random.Generator, shape: tuple[int, int], folder: str) -> np.ndarray:
    """A random part of a photograph, turned and stretched."""
    library = read_photographs(folder)
    image = np.rot90(library[int(rng.integers(len(library)))], int(rng.integers(4)))
    # A little more, since `zoom` rounds the size of its result.
    smallest = max(size / extent for extent, size in zip(image.shape, shape, strict=True)) + 0.02
    zoom = max(log_uniform(rng, 0.3, 1.6), smallest)
    # Only what is needed is stretched.
    height, width = (
        min(extent, int(size / zoom) + 4) for extent, size in zip(image.shape, shape, strict=True)
    )
    top = int(rng.integers(0, image.shape[0] - height + 1))
    left = int(rng.integers(0, image.shape[1] - width + 1))
    part = ndimage.zoom(image[top : top + height, left : left + width], zoom, order=1)
    return part[: shape[0], : shape[1]]


def blank(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Nothing."""
    return np.zeros(shape, np.float32)


OBJECTS: Sequence[tuple[Draw, float]] = (
    (cells, 0.45),
    (dead_leaves, 0.12),
    (power_law_field, 0.10),
    (beads, 0.10),
    (tissue, 0.10),
    (lens_array, 0.05),
    (gratings, 0.05),
    (blank, 0.06),
)
PHOTOGRAPH_SHARE = 0.4  # of the objects, where a folder of photographs is given
PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PHOTOGRAPH_PX = 900


def object_kinds(rng: np.random.Generator) -> np.ndarray:
    """Places in OBJECTS of both kinds of a field, the first values that its generator draws."""
    weights = np.array([weight for _, weight in OBJECTS])
    return rng.choice(len(OBJECTS), size=2, p=weights / weights.sum())


def draw_object(
    rng: np.random.Generator, shape: tuple[int, int], photographs: str = ""
) -> np.ndarray:
    """One object of a random kind, slightly smoothed: peak-to-peak 1, or 0 for a blank field.

    In a quarter of the fields, two objects are added. A share of the objects are taken from the
    folder of photographs, if one is given.
    """
    if photographs and rng.uniform() < PHOTOGRAPH_SHARE:
        image = ndimage.gaussian_filter(photograph(rng, shape, photographs), rng.uniform(0.0, 1.0))
        return ((image - image.min()) / (np.ptp(image) + 1e-12)).astype(np.float32)
    kinds = object_kinds(rng)
    draw, draw_second = (OBJECTS[kind][0] for kind in kinds)
    image = draw(rng, shape)
    if rng.uniform() < 0.25 and image.any():
        height = rng.uniform(0.1, 0.7)
        # The first may be flat, too.
        image = image / (np.ptp(image) + 1e-12) + height * draw_second(rng, shape)
    image = ndimage.gaussian_filter(image, rng.uniform(0.6, 2.0))
    if image.any():
        image = image / (np.ptp(image) + 1e-12)
    return image.astype(np.float32)
