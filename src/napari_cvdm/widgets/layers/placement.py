"""Where a layer lies in the world, and where a result lies that was made from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import block_diag

from napari_cvdm.core.request import RequestError

if TYPE_CHECKING:
    from napari.layers import Image

METADATA_KEY = "napari-cvdm"

_LETTERS = {
    "t": "T",
    "time": "T",
    "c": "C",
    "channel": "C",
    "z": "Z",
    "p": "P",
    "plane": "P",
    "defocus": "P",
    "s": "S",
    "sample": "S",
}
_LETTERS_FOR_UNKNOWN = "TZCS"
_KEYWORDS = ("scale", "translate", "rotate", "shear", "affine", "units")  # of a napari layer
MOST_PLANES = 32  # of one image: a longer axis is not taken for its planes
MOST_UNNAMED_PLANES = 16


def axis_letters(layer: "Image") -> str:
    """Letters of a layer's axes for an `ImageStack`: one for each dimension, ending in YX.

    The axis labels say which axis is time, channel, z, plane or sample. Axes without a known label
    get the first free letter of T, Z, C, S.

    Raises
    ------
    RequestError
        Y and X are not the last two axes, or there are more axes than letters.
    """
    labels = [label.strip().lower() for label in layer.axis_labels]
    if {"y", "x"} & set(labels[:-2]) or labels[-2:] == ["x", "y"]:
        raise RequestError(
            f"{layer.name}: its axes are {', '.join(labels)}; Y and X must be the last two. "
            "Reorder them, for example with numpy.moveaxis."
        )
    known = [_LETTERS.get(label) for label in labels[:-2]]
    free = [letter for letter in _LETTERS_FOR_UNKNOWN if letter not in known]
    letters = []
    for letter in known:
        if letter is None or letter in letters:
            if not free:
                raise RequestError(
                    f"{layer.name}: {layer.ndim} axes are too many; give an image with at most "
                    "time, z, channel and sample beside Y and X."
                )
            letter = free.pop(0)
        letters.append(letter)
    return "".join(letters) + "YX"


def stated_planes(layer: "Image") -> int | None:
    """Number of defocus planes of a layer: an axis of length 2, else its axis P or Z.

    Returns None without such an axis.
    """
    sizes = dict(zip(axis_letters(layer), layer.data.shape[: layer.ndim], strict=True))
    found = [size for letter, size in sizes.items() if letter not in "YX" and size == 2]
    found += [sizes[letter] for letter in "PZ" if 2 < sizes.get(letter, 0) <= MOST_PLANES]
    return found[0] if found else None


def chosen_planes(image: "Image | None", second: "Image | None") -> int | None:
    """Number of planes of one image in one or two layers; None if it is not known.

    The only axis beside Y and X counts, too, if it is short and has no known name.
    """
    if image is None or second is not None:
        return None if image is None else 2
    planes = stated_planes(image)
    unnamed = image.ndim == 3 and image.axis_labels[0].strip().lower() not in _LETTERS
    if planes is None and unnamed and 2 < image.data.shape[0] <= MOST_UNNAMED_PLANES:
        return int(image.data.shape[0])
    return planes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Where a layer lies in the world.

    It is kept apart from the layer, because the layer may be moved or removed meanwhile.
    """

    name: str
    axes: str  # letters of `axis_letters`, D of them
    scale: np.ndarray = field(repr=False)  # (D,), as the translation
    translate: np.ndarray = field(repr=False)
    rotate: np.ndarray = field(repr=False)  # (D, D), as the shear
    shear: np.ndarray = field(repr=False)
    affine: np.ndarray = field(repr=False)  # (D + 1, D + 1)
    units: tuple[str, ...]  # one for each dimension, as the labels
    labels: tuple[str, ...]
    merged: str = ""  # letter of the axis whose planes become one image
    planes: int = 2  # length of that axis
    # Files that the layer was read from, by option of the command line, where they are known.
    files: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()  # names along C; empty where they have none

    @classmethod
    def of_keywords(cls, keywords: Mapping[str, Any]) -> "Placement":
        """The placement that keywords of a layer give, without the letters of its axes."""
        return cls(
            name=keywords["name"],
            axes="_" * len(keywords["scale"]),
            labels=keywords["axis_labels"],
            **{name: keywords[name] for name in _KEYWORDS},
        )

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> "Placement":
        """The placement whose fields were kept as JSON."""
        known = dict(kept)
        for name in ("scale", "translate", "rotate", "shear", "affine"):
            known[name] = np.array(known[name], dtype=float)
        for name in ("units", "labels", "channels"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)

    @classmethod
    def of(cls, layer: "Image") -> "Placement":
        """The placement of a layer now; colours are a leading channel axis."""
        shear = np.eye(layer.ndim)
        shear[np.triu_indices(layer.ndim, 1)] = layer.shear
        place = cls(
            name=layer.name,
            axes=axis_letters(layer),
            scale=np.array(layer.scale),
            translate=np.array(layer.translate),
            rotate=np.array(layer.rotate),
            shear=shear,
            affine=np.array(layer.affine.affine_matrix),
            units=tuple(str(unit) for unit in layer.units),
            labels=tuple(layer.axis_labels),
            channels=tuple(layer.metadata.get(METADATA_KEY, {}).get("channels", ())),
        )
        return place.with_leading("C", "channel") if getattr(layer, "rgb", False) else place

    def finer(self, axes: str, factor: int) -> "Placement":
        """The placement of an image with these axes, on a grid `factor` times finer along Y and X.

        `axes` are letters of this placement, fewer or all of them. The axis `merged` may stay
        although its planes became one image. That image then covers the whole axis.
        """
        # napari places the centre of a pixel, so the first finer pixel lies (1 - 1 / factor) / 2
        # of a pixel before the first coarse one.
        size = np.ones(len(self.axes))
        size[-2:] = factor
        if self.merged:
            size[self.axes.index(self.merged)] = 1 / self.planes
        place = replace(
            self,
            scale=self.scale / size,
            translate=self.translate + self.rotate @ self.shear @ (self.scale * (1 / size - 1) / 2),
            # napari numbers axes that were never named; those get their letters
            labels=tuple(
                letter.lower() if label.lstrip("-").isdigit() else label
                for letter, label in zip(self.axes, self.labels, strict=True)
            ),
        )
        return place.with_axes([self.axes.index(letter) for letter in axes])

    def with_axes(self, numbers: list[int]) -> "Placement":
        """The same with some of the axes, in this order."""
        return replace(
            self,
            axes="".join(self.axes[number] for number in numbers),
            scale=self.scale[numbers],
            translate=self.translate[numbers],
            rotate=self.rotate[np.ix_(numbers, numbers)],
            shear=self.shear[np.ix_(numbers, numbers)],
            affine=self.affine[np.ix_([*numbers, -1], [*numbers, -1])],
            units=tuple(self.units[number] for number in numbers),
            labels=tuple(self.labels[number] for number in numbers),
        )

    def within(self, region: tuple[int, int, int, int] | None) -> "Placement":
        """The placement of (top, bottom, left, right) in the layer's pixels; None is all of it."""
        return self if region is None else self.beginning({"Y": region[0], "X": region[2]})

    def beginning(self, position: Mapping[str, int]) -> "Placement":
        """The placement of an image that begins at a pixel of the layer, given by axis letter."""
        first = np.array([position.get(letter, 0) for letter in self.axes])
        return replace(
            self, translate=self.translate + self.rotate @ self.shear @ (self.scale * first)
        )

    def with_leading(
        self,
        letter: str,
        label: str,
        start: float = 0.0,
        step: float = 1.0,
        unit: str = "dimensionless",
    ) -> "Placement":
        """The same with one more axis in front, such as channel, sample or schedule time."""
        return replace(
            self,
            axes=letter + self.axes,
            scale=np.array([step, *self.scale]),
            translate=np.array([start, *self.translate]),
            rotate=block_diag(np.eye(1), self.rotate),
            shear=block_diag(np.eye(1), self.shear),
            affine=block_diag(np.eye(1), self.affine),
            units=(unit, *self.units),
            labels=(label, *self.labels),
        )

    def with_pixel(self, pixel_um: float | None) -> "Placement":
        """The same with another pixel size along Y and X; None changes nothing."""
        if pixel_um is None:
            return self
        scale, translate = self.scale.copy(), self.translate.copy()
        translate[-2:] *= pixel_um / np.abs(scale[-2:])
        scale[-2:] = np.copysign(pixel_um, scale[-2:])
        return replace(
            self, scale=scale, translate=translate, units=(*self.units[:-2], *2 * ("micrometer",))
        )

    def keywords(self) -> dict[str, Any]:
        """Keywords of a layer that lies here."""
        return {**{name: getattr(self, name) for name in _KEYWORDS}, "axis_labels": self.labels}


def placed_image(
    source: Placement, axes: str, upsampling: int, values: np.ndarray
) -> tuple[np.ndarray, Placement]:
    """A view of an array, and the placement of its last dimensions (not of a leading one).

    The view is a plain (Y, X) image, or has as many axes as the source. napari's sliders then
    agree.

    Parameters
    ----------
    source : Placement
        Of the measured image; the letters that are not among `axes` are merged.
    axes : str
        Of an image of the result, without a leading axis of times or samples.
    values : ndarray
        With one letter of `axes` for each dimension, or one more leading dimension.
    """
    source = replace(source, merged="".join(set(source.axes) - set(axes)))
    if values.ndim == len("YX") or not source.merged:
        return values, source.finer(axes, upsampling)
    place = source.axes.index(source.merged) + values.ndim - len(axes)
    return np.expand_dims(values, place), source.finer(source.axes, upsampling)
