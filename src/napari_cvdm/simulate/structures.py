"""Fluorescent structures as clouds of emitters, in micrometres, and as images of emitters.

Lines have a width, and tubes are hollow. Each structure is drawn on a field of (height, width) um
from a NumPy generator. It has positions (N, 2) as (y, x) and the brightness of each emitter (N,).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import Voronoi
from torch import Tensor

from napari_cvdm.simulate.phase_objects import dead_leaves, log_uniform, photograph, power_law_field

Emitters = tuple[np.ndarray, np.ndarray]
Field = tuple[float, float]
Draw = Callable[[np.random.Generator, Field], Emitters]
SPACING_UM = 0.02  # between the points of a line
# A fine pixel, as the structures are drawn: a dry objective is shown larger ones.
FINEST_DRAWN_UM, COARSEST_DRAWN_UM = 0.012, 0.05


def labelled(rng: np.random.Generator, positions: np.ndarray, grain: float) -> Emitters:
    """Gamma-distributed brightness: the larger the grain, the patchier the labelling."""
    return positions, rng.gamma(1 / grain, grain, len(positions))


def tube_around(
    rng: np.random.Generator, centre: np.ndarray, heading: np.ndarray, diameter: float
) -> np.ndarray:
    """Points on the projected surface of a tube: R sin(angle) beside its axis, any angle alike."""
    across = 0.5 * diameter * np.sin(rng.uniform(0, 2 * np.pi, len(centre)))
    normal = np.stack([np.cos(heading), -np.sin(heading)], axis=1)
    return centre + across[:, None] * normal


def worms(
    rng: np.random.Generator,
    field: Field,
    count: int,
    wobble: float,
    diameter: float,
    length: float,
) -> np.ndarray:
    """Worm-like chains: the heading is a random walk of `wobble` rad per sqrt(um); (N, 2)."""
    steps = max(2, int(length / SPACING_UM))
    turns = gaussian_filter(rng.normal(0, 1, (count, steps)), (0, 8))
    turns *= np.sqrt(2 * 8 * np.sqrt(np.pi))  # the filter keeps unit variance
    turned = np.cumsum(turns, axis=1) * wobble * np.sqrt(SPACING_UM)
    heading = rng.uniform(0, 2 * np.pi, (count, 1)) + turned
    path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=-1) * SPACING_UM, axis=1)
    start = rng.uniform(-0.2, 1.2, (count, 1, 2)) * np.array(field)
    # Its middle is placed, so that lines cross the field from everywhere.
    centre = (path - path[:, steps // 2 : steps // 2 + 1] + start).reshape(-1, 2)
    heading = np.repeat(heading.reshape(-1), 2)
    return tube_around(rng, np.repeat(centre, 2, axis=0), heading, diameter)


def microtubules(rng: np.random.Generator, field: Field) -> Emitters:
    """Long, stiff filaments of 35 to 60 nm with their label."""
    count, wobble = int(rng.integers(4, 60)), log_uniform(rng, 0.03, 0.5)
    # The tube has 25 nm, and its label lies around it.
    lines = worms(rng, field, count, wobble, rng.uniform(0.035, 0.06), 1.5 * max(field))
    return labelled(rng, lines, rng.uniform(0.5, 6))


def actin(rng: np.random.Generator, field: Field) -> Emitters:
    """Stress fibres (bundles of parallel lines) over a mesh of short ones."""
    count, wobble = int(rng.integers(30, 250)), rng.uniform(0.5, 2.0)
    parts = [worms(rng, field, count, wobble, 0.02, rng.uniform(0.5, 3.0))]
    direction = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(0, 14))):
        lines, heading = int(rng.integers(3, 25)), direction + rng.normal(0, 0.2)
        along = rng.uniform(-0.7, 0.7, (lines * 400, 1)) * max(field)
        across = rng.normal(0, rng.uniform(0.03, 0.15), (lines, 1)).repeat(400, axis=0)
        axis = np.array([[np.sin(heading), np.cos(heading)]])
        normal = np.array([[np.cos(heading), -np.sin(heading)]])
        parts.append(rng.uniform(0, 1, 2) * np.array(field) + along * axis + across * normal)
    return labelled(rng, np.concatenate(parts), rng.uniform(0.5, 4))


def _edges(rng: np.random.Generator, field: Field, cell_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the edges of a jittered Voronoi diagram: two arrays (E, 2)."""
    # Seeds lie around the field, too: the rim of a Voronoi diagram is different.
    margin = 3 * cell_um
    area = (field[0] + 2 * margin) * (field[1] + 2 * margin)
    seeds = rng.uniform(-margin, np.array(field) + margin, (max(8, int(area / cell_um**2)), 2))
    diagram = Voronoi(seeds)
    ridges = np.array([ridge for ridge in diagram.ridge_vertices if -1 not in ridge])
    first, second = diagram.vertices[ridges[:, 0]], diagram.vertices[ridges[:, 1]]
    # At the rim of a Voronoi diagram, edges may be of any length.
    short = np.linalg.norm(first - second, axis=1) < 6 * cell_um
    return first[short], second[short]


def tubular_network(
    rng: np.random.Generator, field: Field, cell_um: float, diameter: float, kept: float
) -> np.ndarray:
    """Curved hollow tubes along Voronoi edges, a share of them missing; (N, 2)."""
    first, second = _edges(rng, field, cell_um)
    chosen = rng.uniform(size=len(first)) < kept
    first, second = first[chosen], second[chosen]
    length = np.linalg.norm(second - first, axis=1)
    counts = np.maximum(2, (length / SPACING_UM * 3).astype(int))
    index = np.repeat(np.arange(len(first)), counts)
    along, span = rng.uniform(size=len(index)), (second - first)[index]
    bow = (rng.normal(0, 0.12, len(first)) * length)[index] * np.sin(np.pi * along)
    bow += (rng.normal(0, 0.03, len(first)) * length)[index] * np.sin(3 * np.pi * along)
    heading = np.arctan2(*span.T)
    centre = first[index] + along[:, None] * span
    centre += bow[:, None] * np.stack([np.cos(heading), -np.sin(heading)], axis=1)
    return tube_around(rng, centre, heading, diameter)


def sheets(
    rng: np.random.Generator, field: Field, density: float, share: float, scale_um: float
) -> np.ndarray:
    """Flat sheets with ragged outlines, points (N, 2) where a smooth random field is high."""
    points = rng.uniform(0, 1, (int(density * field[0] * field[1]), 2)) * np.array(field)
    sigma = max(0.8, 64 * scale_um / max(field))
    texture = gaussian_filter(rng.normal(size=(64, 64)), sigma, mode="wrap")
    level = map_coordinates(texture, (points / np.array(field) * 63).T, order=1)
    return points[level > np.quantile(texture, 1 - share)]


def _where_there_is_a_cell(rng: np.random.Generator, field: Field, emitters: Emitters) -> Emitters:
    """Keep a ragged part of the field: cells end somewhere, and density varies over them."""
    positions, brightness = emitters
    texture = gaussian_filter(rng.normal(size=(48, 48)), rng.uniform(6, 14), mode="wrap")
    places = (positions / np.array(field) * 47).T
    level = map_coordinates(texture / texture.std(), places, order=1, mode="nearest")
    if rng.uniform() < 0.4:
        return positions, brightness * np.exp(0.5 * level)
    inside = level > rng.uniform(-1.5, 0.3)
    return positions[inside], brightness[inside] * np.exp(0.3 * level[inside])


def reticulum(rng: np.random.Generator, field: Field) -> Emitters:
    """Endoplasmic reticulum: tubes of 60 to 110 nm with three-way junctions, and sheets."""
    cell = log_uniform(rng, 0.4, 3.0)
    tubes = tubular_network(rng, field, cell, rng.uniform(0.06, 0.11), rng.uniform(0.6, 1.0))
    if rng.uniform() < 0.35:
        diameter, kept = rng.uniform(0.06, 0.1), rng.uniform(0.2, 0.7)
        finer = tubular_network(rng, field, 0.5 * cell, diameter, kept)
        tubes = np.concatenate([tubes, finer])
    parts = [labelled(rng, tubes, rng.uniform(0.3, 3))]
    if rng.uniform() < 0.6:
        density, share = rng.uniform(500, 3000), log_uniform(rng, 0.02, 0.5)
        flat = sheets(rng, field, density, share, rng.uniform(0.3, 1.5))
        parts.append(labelled(rng, flat, rng.uniform(0.3, 3)))
    if rng.uniform() < 0.3:
        parts.append(_vesicles_beside(rng, field, parts, 0.05, 1))
    return _where_there_is_a_cell(rng, field, merged(parts))


def rings(rng: np.random.Generator, field: Field) -> Emitters:
    """Coated pits and vesicles: rings and shells of 60 to 400 nm, some of them clustered."""
    count = int(log_uniform(rng, 0.1, 3.0) * field[0] * field[1]) + 1
    centres = rng.uniform(-0.05, 1.05, (count, 2)) * np.array(field)
    if rng.uniform() < 0.4:
        near = centres[rng.integers(0, max(1, count // 2), count - count // 2)]
        centres[count // 2 :] = near + rng.normal(0, 0.2, near.shape)
    largest = 0.15 if rng.uniform() < 0.6 else 0.4  # um
    radius = 0.5 * np.exp(rng.uniform(np.log(0.06), np.log(largest), count))
    points = 60
    angle = rng.uniform(0, 2 * np.pi, (count, points))
    lift = rng.uniform(-1, 1, (count, points)) * rng.uniform(0, 1)
    flat = radius[:, None] * np.sqrt(1 - lift**2)
    positions = centres[:, None] + np.stack([flat * np.sin(angle), flat * np.cos(angle)], axis=-1)
    bright = np.exp(rng.normal(0, rng.uniform(0.2, 0.9), count))[:, None]
    return positions.reshape(-1, 2), (bright * rng.gamma(1, 1, (count, points))).ravel()


def beads(rng: np.random.Generator, field: Field) -> Emitters:
    """Points, single or in dense groups."""
    count = int(log_uniform(rng, 0.05, 12.0) * field[0] * field[1]) + 1
    positions = rng.uniform(0, 1, (count, 2)) * np.array(field)
    brightness = np.exp(rng.normal(0, rng.uniform(0, 0.8), count))
    return _where_there_is_a_cell(rng, field, (positions, brightness))


def mitochondria(rng: np.random.Generator, field: Field) -> Emitters:
    """Thick tubes of 0.2 to 0.6 um, filled or hollow, with a textured inside."""
    count, diameter = int(rng.integers(3, 25)), rng.uniform(0.2, 0.6)
    lines = worms(rng, field, count, rng.uniform(0.6, 2.0), 0.0, rng.uniform(1, 5))
    skeleton = np.repeat(lines, 4, axis=0)
    radius = np.full(len(skeleton), 0.5 * diameter)
    if rng.uniform() < 0.5:  # filled
        radius *= np.sqrt(rng.uniform(size=len(skeleton)))
    angle = rng.uniform(0, 2 * np.pi, len(skeleton))
    across = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    positions = skeleton + across * rng.uniform(0.3, 1, (len(skeleton), 1))
    return labelled(rng, positions, rng.uniform(1, 6))


def membranes(rng: np.random.Generator, field: Field) -> Emitters:
    """Cells with a thin outline, a diffuse inside, a dark or bright nucleus, and some vesicles."""
    parts = []
    radius = rng.uniform(0.15, 0.6) * max(field)
    inside = log_uniform(rng, 0.05, 2.0)  # light of the inside over that of the outline
    for _ in range(int(rng.integers(1, 5))):
        centre = rng.uniform(0, 1, 2) * np.array(field)
        orders = np.arange(2, 8)
        amplitude = rng.normal(0, 0.25, len(orders)) / orders**1.2
        phase = rng.uniform(0, 2 * np.pi, len(orders))
        count = int(2 * np.pi * radius / SPACING_UM * 3)
        angle = rng.uniform(0, 2 * np.pi, 2 * count)
        waves = np.sum(amplitude * np.cos(orders * angle[:, None] + phase), axis=1)
        reach = radius * (1 + waves).clip(0.3, 2)
        share = np.concatenate([np.ones(count), np.sqrt(rng.uniform(size=count))])
        direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        place = centre + (share * reach)[:, None] * direction
        place += rng.normal(0, 0.01, place.shape)
        bright = np.concatenate([np.ones(count), np.full(count, inside)])
        distance = np.linalg.norm(place - centre - rng.normal(0, 0.1 * radius, 2), axis=1)
        nucleus = distance < rng.uniform(0.2, 0.5) * radius
        bright[nucleus] *= rng.choice([0.1, rng.uniform(0.1, 3.0)])
        parts.append((place, bright))
    if rng.uniform() < 0.5:
        parts.append(_vesicles_beside(rng, field, parts, 0.2, 3))
    return merged(parts)


def vesicles(rng: np.random.Generator, field: Field) -> Emitters:
    """Filled balls and hollow shells of 0.1 to 1 um, projected."""
    count = int(log_uniform(rng, 0.05, 1.0) * field[0] * field[1]) + 1
    centres = rng.uniform(0, 1, (count, 2)) * np.array(field)
    radius = 0.5 * np.exp(rng.uniform(np.log(0.1), np.log(1.0), count))
    points = np.maximum(12, (radius / SPACING_UM) ** 2 * 6).astype(int).clip(max=2000)
    index = np.repeat(np.arange(count), points)
    angle, height = rng.uniform(0, 2 * np.pi, len(index)), rng.uniform(-1, 1, len(index))
    depth = rng.uniform(size=len(index)) ** (1 / 3)  # uniform in a ball
    depth = np.where((rng.uniform(size=count) < 0.5)[index], depth, 1.0)  # filled, or hollow
    reach = radius[index] * depth * np.sqrt(1 - height**2)
    bright = (np.exp(rng.normal(0, 0.8, count)) / points)[index]
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return centres[index] + reach[:, None] * direction, bright


def _vesicles_beside(
    rng: np.random.Generator, field: Field, parts: Sequence[Emitters], least: float, most: float
) -> Emitters:
    """Vesicles whose flux is a random multiple, `least` to `most`, of that of other structures."""
    positions, brightness = vesicles(rng, field)
    flux = sum(part[1].sum() for part in parts)
    return positions, brightness * rng.uniform(least, most) * flux / max(brightness.sum(), 1e-9)


def nothing(rng: np.random.Generator, field: Field) -> Emitters:
    """A blank field."""
    return np.zeros((0, 2)), np.zeros(0)


def merged(parts: Sequence[Emitters]) -> Emitters:
    """All emitters of several structures."""
    positions, brightness = zip(*parts, strict=True)
    return np.concatenate(positions), np.concatenate(brightness)


STRUCTURES: Sequence[tuple[Draw, float]] = (
    (reticulum, 0.30),
    (microtubules, 0.15),
    (actin, 0.13),
    (rings, 0.12),
    (beads, 0.06),
    (mitochondria, 0.10),
    (membranes, 0.10),
    (nothing, 0.04),
)
STRUCTURE_NAMES = tuple(draw.__name__ for draw, _ in STRUCTURES)


def structure_kinds(rng: np.random.Generator, names: Sequence[str] = STRUCTURE_NAMES) -> np.ndarray:
    """Places in STRUCTURES of both kinds of a field, the first values that its generator draws."""
    weights = np.array([weight if draw.__name__ in names else 0.0 for draw, weight in STRUCTURES])
    return rng.choice(len(STRUCTURES), size=2, p=weights / weights.sum())


def draw_structure(
    rng: np.random.Generator, field: Field, names: Sequence[str] = STRUCTURE_NAMES
) -> Emitters:
    """Emitters of a random structure of those named, in the proportions of STRUCTURES.

    In half of the fields, a second structure of another brightness is added. Some emitters lie
    outside the field.
    """
    kinds = structure_kinds(rng, names)
    first = STRUCTURES[kinds[0]][0](rng, field)
    if rng.uniform() > 0.5 or not len(first[0]):  # a blank field stays blank
        return first
    positions, brightness = STRUCTURES[kinds[1]][0](rng, field)
    balance = log_uniform(rng, 0.03, 2.0) * first[1].sum() / max(brightness.sum(), 1e-9)
    return merged([first, (positions, brightness * balance)])


def splat(emitters: Emitters, shape: tuple[int, int], pixel_um: float) -> Tensor:
    """Emitters on a grid (Y, X), float32.

    Four pixels share each emitter bilinearly, so that flux and position are kept.
    """
    positions, brightness = emitters
    place = positions / pixel_um - 0.5  # the centre of pixel 0 lies at half a pixel
    corner = np.floor(place).astype(np.int64)
    share = place - corner
    image = np.zeros(shape[0] * shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = corner[:, 0] + dy, corner[:, 1] + dx
            inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
            weight = np.abs(1 - dy - share[:, 0]) * np.abs(1 - dx - share[:, 1]) * brightness
            image += np.bincount((y * shape[1] + x)[inside], weight[inside], minlength=image.size)
    return torch.from_numpy(image.reshape(shape)).float()


def drawn_pixel(rng: np.random.Generator, pixel_um: float) -> float:
    """The size that a fine pixel has while structures are drawn."""
    return min(pixel_um, log_uniform(rng, FINEST_DRAWN_UM, COARSEST_DRAWN_UM))


def draw_specimen(
    rng: np.random.Generator, side: int, pixel_um: float, names: tuple[str, ...] = STRUCTURE_NAMES
) -> Tensor:
    """Emitters of random structures of those named, under a smooth random brightness.

    One field therefore holds dim and bright structures.
    """
    drawn_um = drawn_pixel(rng, pixel_um)
    image = splat(draw_structure(rng, (side * drawn_um,) * 2, names), (side, side), drawn_um)
    noise = rng.normal(size=(side, side))
    smooth = gaussian_filter(noise, side / rng.uniform(6, 20), mode="wrap")
    light = torch.from_numpy(smooth).float()
    return image * torch.exp(rng.uniform(0, 1.2) * light / light.std())


def draw_texture(rng: np.random.Generator, side: int, photographs: str = "") -> Tensor:
    """Emitters of no structure of a cell: dead leaves, a power-law field, or a photograph."""
    kind = rng.choice(3 if photographs else 2)
    if kind == 0:
        image = gaussian_filter(dead_leaves(rng, (side, side)), rng.uniform(0.3, 1.5))
    elif kind == 1:
        strength = rng.uniform(0.2, 1.0)
        waves = power_law_field(rng, (side, side), rng.uniform(0.6, 2.0)).clip(-4, 4)
        image = np.exp(strength * waves)
    else:
        image = photograph(rng, (side, side), photographs)
    low, high = float(image.min()), float(image.max())
    contrast = ((image - low) / max(high - low, 1e-9)) ** rng.uniform(0.7, 2.5)
    floor = np.float32(rng.choice([0.0, rng.uniform(0, 0.5)]))
    return torch.from_numpy(np.asarray(contrast, np.float32) + floor)
