"""A phase reconstruction in a viewer: the layers of its group, frame by frame, and its optics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from napari_cvdm.analysis.dry_mass import PhaseFrame
from napari_cvdm.core.request import RequestError
from napari_cvdm.widgets.layers.layer_data import layer_pixel_um, plugin_metadata

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer

PIXEL_TOLERANCE = 0.01
Index = tuple[int, ...]


def is_phase_result(layer: "Layer") -> bool:
    """Whether a layer is a phase reconstruction of ours."""
    mark = plugin_metadata(layer)
    return (
        mark.get("role") == "reconstruction" and mark.get("unit") == "rad" and "provenance" in mark
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhaseResult:
    """The layers of one phase reconstruction that a measurement needs.

    Samples and untrusted pixels may be missing.
    """

    layer: "Image"
    samples: "Layer | None" = field(repr=False)
    untrusted: "Layer | None" = field(repr=False)

    @classmethod
    def of(cls, viewer: "Viewer", layer: "Image") -> "PhaseResult":
        """The result that a reconstruction layer belongs to, as the viewer holds it now."""
        return cls(
            layer=layer,
            samples=_partner(viewer, layer, "samples", 1),
            untrusted=_partner(viewer, layer, "untrusted pixels", 0),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What it was reconstructed with, by request name."""
        return dict(plugin_metadata(self.layer)["provenance"]["settings"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt it, in words."""
        return tuple(plugin_metadata(self.layer)["provenance"].get("warnings", ()))

    @property
    def group(self) -> str:
        """The name that its layers share."""
        return str(plugin_metadata(self.layer).get("group", self.layer.name))

    @property
    def source(self) -> str:
        """Name of the measured layer."""
        return str(plugin_metadata(self.layer).get("source", self.layer.name))

    def pixel_um(self) -> float:
        """Pixel size [um]: of the layer, or else of the settings.

        Raises
        ------
        RequestError
            The layer was given another pixel size than the phase was reconstructed with.
        """
        shown, used = layer_pixel_um(self.layer), self.settings.get("pixel_um")
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

    def wavelength_um(self) -> float:
        """Vacuum wavelength [um].

        Raises
        ------
        RequestError
            The reconstruction does not say it.
        """
        wavelength_um = self.settings.get("wavelength_um")
        if wavelength_um is None:
            raise RequestError(
                f"the wavelength of {self.layer.name} is not known. Reconstruct again with "
                "wavelength_um."
            )
        return float(wavelength_um)

    def made_with(self) -> dict[str, object]:
        """What every row of a table should say about it."""
        provenance = plugin_metadata(self.layer)["provenance"]
        return {
            "wavelength_um": self.wavelength_um(),
            "pixel_um": self.pixel_um(),
            "group": self.group,
            "model": provenance["model"]["name"],
            "model_sha256": provenance["model"]["sha256"],
            "warnings": " ".join(self.warnings),
        }

    def indices(self) -> list[Index]:
        """Index of every frame along the leading axes."""
        return list(product(*(range(size) for size in self.layer.data.shape[:-2])))

    def frame(self, index: Index) -> PhaseFrame:
        """One frame, not read yet."""
        long = [
            (label, position)
            for label, position, size in zip(
                self.layer.axis_labels, index, self.layer.data.shape, strict=False
            )
            if size > 1
        ]
        positions = [position for _, position in long]
        return PhaseFrame(
            place=dict(long),
            phase=_frame(self.layer, positions, 0),
            pixel_um=self.pixel_um(),
            wavelength_um=self.wavelength_um(),
            samples=None if self.samples is None else _frame(self.samples, positions, 1),
            untrusted=None if self.untrusted is None else _frame(self.untrusted, positions, 0),
        )


def _long_axes(layer: "Layer", skipped: int) -> list[int]:
    return [size for size in layer.data.shape[skipped:-2] if size > 1]


def _partner(viewer: "Viewer", layer: "Image", role: str, skipped: int) -> "Layer | None":
    """The layer of this role in the same group with the same frames.

    The frames follow after `skipped` leading axes of its own.
    """
    wanted = (role, plugin_metadata(layer).get("group"))
    alike = [
        other
        for other in viewer.layers
        if (plugin_metadata(other).get("role"), plugin_metadata(other).get("group")) == wanted
    ]
    fits = [
        other
        for other in alike
        if other.data.shape[-2:] == layer.data.shape[-2:]
        and _long_axes(other, skipped) == _long_axes(layer, 0)
    ]
    return fits[-1] if fits else None


def _frame(layer: "Layer", positions: Sequence[int], skipped: int) -> Any:
    """The frame at these positions along the axes that are longer than one; lazy data stay lazy."""
    rest = iter(positions)
    index = tuple(0 if size == 1 else next(rest) for size in layer.data.shape[skipped:-2])
    return layer.data[(slice(None),) * skipped + index]
