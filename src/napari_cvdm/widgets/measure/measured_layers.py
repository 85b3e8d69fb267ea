"""The layers that objects are measured from: a reconstruction, and a mask over it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from napari.viewer import Viewer

from napari_cvdm.analysis.measure import PHASE, MaskFrame, MeasuredFrame
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, layer_pixel_um, plugin_metadata
from napari_cvdm.widgets.layers.result_layers import RECONSTRUCTION, SAMPLES, UNTRUSTED, groups_of

MASK = "mask"
PIXEL_TOLERANCE = 0.01  # relative
WITHOUT_INSIDE = ("line", "path")
Index = tuple[int, ...]


def is_result(layer: Layer) -> bool:
    """Whether a layer is a reconstruction of ours that lies in memory or is read frame by frame."""
    metadata = plugin_metadata(layer)
    is_image = metadata.get("role") == RECONSTRUCTION and not getattr(layer, "multiscale", False)
    return is_image and "provenance" in metadata


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredResult:
    """The layers of one reconstruction that a measurement needs.

    Samples and untrusted pixels may be missing.
    """

    layer: Image
    samples: Layer | None = field(repr=False)
    untrusted: Layer | None = field(repr=False)
    unit: str  # of its values: ``rad`` or ``counts``
    group: str  # the name that its layers share
    source: str  # name of the measured layer
    provenance: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, viewer: Viewer, layer: Image) -> "MeasuredResult":
        """The result that a reconstruction layer belongs to, as the viewer holds it now."""
        known = plugin_metadata(layer)
        return cls(
            layer=layer,
            samples=_find_partner(viewer, layer, SAMPLES, 1),
            untrusted=_find_partner(viewer, layer, UNTRUSTED, 0),
            unit=str(known.get("unit", "")),
            group=str(known.get("group", layer.name)),
            source=str(known.get("source", layer.name)),
            provenance=dict(known["provenance"]),
        )

    @property
    def is_phase(self) -> bool:
        """Whether it has an optical path and a dry mass."""
        return self.unit == PHASE

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt it, in words."""
        return tuple(self.provenance.get("warnings", ()))

    @property
    def run(self) -> str:
        """Fingerprint of the run that made it: another run with the same model has another one."""
        names = ("inputs", "settings", "timings_s")  # the times differ where all else is the same
        known = {name: self.provenance.get(name) for name in names}
        return sha256(json.dumps([self.group, known], default=str).encode()).hexdigest()

    @property
    def calibration(self) -> dict[str, Any]:
        """How the model's spread is scaled to an interval; empty where it is not calibrated."""
        found = self.provenance.get("model", {}).get("calibration")
        return dict(found) if isinstance(found, dict) else {}

    def pixel_um(self) -> float:
        """Pixel size [um]: of the layer, or else of the settings of a phase.

        RequestError if it is not known, or if a phase was reconstructed with another one.
        """
        shown = layer_pixel_um(self.layer)
        used = self.provenance["settings"].get("pixel_um") if self.is_phase else None
        known = used if shown is None else shown
        if known is None:
            raise RequestError(
                f"the pixel size of {self.layer.name} is not known. Give its scale in micrometres "
                "and reconstruct again."
            )
        if shown is not None and used is not None and abs(shown / used - 1) > PIXEL_TOLERANCE:
            raise RequestError(
                f"{self.layer.name} has pixels of {shown:.4g} µm but was reconstructed with "
                f"{used:.4g} µm; phase and mass grow with their square. Correct the scale of the "
                "measured layer and reconstruct again."
            )
        return float(known)

    def wavelength_um(self) -> float | None:
        """Vacuum wavelength of a phase [um]; RequestError if its reconstruction does not say it."""
        wavelength_um = self.provenance["settings"].get("wavelength_um")
        if not self.is_phase:
            return None
        if wavelength_um is None:
            raise RequestError(
                f"the wavelength of {self.layer.name} is not known. Reconstruct again with "
                "wavelength_um."
            )
        return float(wavelength_um)

    def made_with(self) -> dict[str, object]:
        """What every row of a table should say about it."""
        wavelength_um = self.wavelength_um()
        return {
            **({} if wavelength_um is None else {"wavelength_um": wavelength_um}),
            "pixel_um": self.pixel_um(),
            "unit": self.unit,
            "group": self.group,
            "model": self.provenance["model"].get("name", ""),
            "model_sha256": self.provenance["model"].get("sha256", ""),
            "warnings": " ".join(self.warnings),
        }

    def indices(self) -> list[Index]:
        """Index of every frame along the leading axes."""
        return list(product(*(range(size) for size in self.layer.data.shape[:-2])))

    def frame(self, index: Index, *, above_background: bool = False) -> MeasuredFrame:
        """One frame, not read yet."""
        axes = zip(self.layer.axis_labels, index, self.layer.data.shape, strict=False)
        # Axes of one frame tell nothing, and the other layers may lack them.
        long = [(label, position) for label, position, size in axes if size > 1]
        positions = [position for _, position in long]
        return MeasuredFrame(
            place=dict(long),
            image=_take_frame(self.layer, positions, 0),
            samples=None if self.samples is None else _take_frame(self.samples, positions, 1),
            untrusted=None if self.untrusted is None else _take_frame(self.untrusted, positions, 0),
            optics={
                "pixel_um": self.pixel_um(),
                "unit": self.unit,
                "wavelength_um": self.wavelength_um(),
                "calibration": self.calibration,
                "above_background": above_background,
            },
        )


def _find_partner(viewer: Viewer, layer: Image, role: str, skipped: int) -> Layer | None:
    """The layer of this role in the same group with the same frames.

    The frames follow after `skipped` leading axes of its own.
    """

    def frame_axes(shape: Sequence[int]) -> list[int]:
        return [*(size for size in shape[:-2] if size > 1), *shape[-2:]]

    name = plugin_metadata(layer).get("group")
    partners = [group.layer(role) for group in groups_of(viewer.layers) if group.name == name]
    fits = [
        other
        for other in partners
        if other is not None
        and frame_axes(other.data.shape[skipped:]) == frame_axes(layer.data.shape)
    ]
    return fits[-1] if fits else None


def _take_frame(layer: Layer, positions: Sequence[int], skipped: int) -> Any:
    """The frame at these positions along the axes that are longer than one; lazy data stay lazy."""
    rest = iter(positions)
    index = tuple(0 if size == 1 else next(rest) for size in layer.data.shape[skipped:-2])
    return layer.data[(slice(None),) * skipped + index]


def is_mask(layer: Layer) -> bool:
    """Whether a layer can say where to measure: Labels that the user made, or Shapes."""
    return isinstance(layer, Labels | Shapes) and plugin_metadata(layer).get("role") != UNTRUSTED


def mark_suggested(result: MeasuredResult, thresholds: Sequence[float | None]) -> dict[str, Any]:
    """Metadata of a suggested mask: the run that it is of, and the threshold of each frame."""
    return {METADATA_KEY: {"role": MASK, "of": result.run, "thresholds": list(thresholds)}}


def threshold_of(mask: Layer, result: MeasuredResult, number: int) -> float | None:
    """The threshold by which a mask was suggested for a frame of this result, if it was."""
    known = plugin_metadata(mask)
    thresholds = known.get("thresholds", ())
    # A mask may be put over another result, whose samples this threshold says nothing of.
    if known.get("of") != result.run or number >= len(thresholds):
        return None
    found = thresholds[number]
    return None if found is None else float(found)


def mask_frame(mask: Layer, image: Image, index: Index, point: Sequence[float]) -> MaskFrame:
    """The regions of the frame with this index along the leading axes of an image.

    A mask with fewer axes than the image holds for every frame. Along axes that the image lacks,
    the mask is read at `point`, in world coordinates such as ``viewer.dims.point``. RequestError
    for a mask without this frame, and for shapes that have no inside or cover no pixel.
    """
    if not isinstance(mask, Shapes):
        return _labels_frame(mask, image, index, point)
    regions = _rasterise_shapes(mask, image, index, point)
    return MaskFrame(labels=regions, matrix=np.eye(2), offset=np.zeros(2))


def _map_between(
    source: Layer, target: Layer, point: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset that map pixels of one layer to pixels of another.

    They are found from the mapped ends of the axes.
    """

    def there(pixel: np.ndarray) -> np.ndarray:
        # napari aligns the axes of layers at the last ones.
        world = np.zeros(max(len(point), source.ndim))
        world[-len(point) :] = point
        world[-source.ndim :] = source.data_to_world(pixel)
        return np.asarray(target.world_to_data(world))

    offset = there(np.zeros(source.ndim))
    return np.stack([there(axis) - offset for axis in np.eye(source.ndim)], axis=1), offset


def _labels_frame(mask: Labels, image: Image, index: Index, point: Sequence[float]) -> MaskFrame:
    matrix, offset = _map_between(image, mask, point)
    labels: Any = mask.data[0] if mask.multiscale else mask.data
    at_frame = matrix[:, :-2] @ np.array(index, float) + offset
    frame = []
    for position, size, label in zip(at_frame, labels.shape[:-2], mask.axis_labels, strict=False):
        number = 0 if size == 1 else round(float(position))  # one frame holds for all
        if not 0 <= number < size:
            raise RequestError(
                f"the mask {mask.name} has no frame {number} on axis {label}; it has {size}. Draw "
                "one over all frames."
            )
        frame.append(number)
    drawn = labels[tuple(frame)]
    if isinstance(drawn, np.ndarray):
        drawn = drawn.copy()  # the user may paint meanwhile
    return MaskFrame(labels=drawn, matrix=matrix[-2:, -2:], offset=at_frame[-2:])


def _rasterise_shapes(
    mask: Shapes, image: Image, index: Index, point: Sequence[float]
) -> np.ndarray:
    """The n-th shape of a layer as region n, drawn by napari on the pixels of the image."""
    matrix, offset = _map_between(mask, image, point)
    placed = [np.asarray(vertices) @ matrix.T + offset for vertices in mask.data]
    # An axis of one frame holds every shape.
    long = [axis for axis, size in enumerate(image.data.shape[:-2]) if size > 1]
    here = [
        number
        for number, vertices in enumerate(placed)
        if mask.ndim < image.ndim
        or all(round(float(vertices[0, axis])) == index[axis] for axis in long)
    ]
    flat = [number for number in here if mask.shape_type[number] in WITHOUT_INSIDE]
    if flat:
        raise RequestError(
            f"shape {flat[0] + 1} of {mask.name} is a {mask.shape_type[flat[0]]} and has no "
            "inside. Draw a polygon, an ellipse or a rectangle."
        )
    size = image.data.shape[-2:]
    if not here:
        return np.zeros(size, int)
    drawn = Shapes(
        [placed[number][:, -2:] for number in here],
        shape_type=[mask.shape_type[number] for number in here],
        ndim=2,
    )
    # napari numbers the shapes that it draws here; the user knows those of the whole layer.
    regions = np.array([0, *(number + 1 for number in here)])[drawn.to_labels(size)]
    missed = sorted({number + 1 for number in here} - set(np.unique(regions).tolist()))
    if missed:
        raise RequestError(
            f"shape {missed[0]} of {mask.name} covers no pixel of {image.name}, or other shapes "
            "cover it. Move it onto a cell, or delete it."
        )
    return regions
