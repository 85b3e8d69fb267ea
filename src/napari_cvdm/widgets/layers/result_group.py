"""The layers of one result, found by what their metadata says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_cvdm.core.result import ClockCurve
from napari_cvdm.widgets.layers.layer_data import plugin_metadata

if TYPE_CHECKING:
    from napari.layers import Layer

RATE = "noise-rate map"
RECONSTRUCTION = "reconstruction"
SAMPLES = "samples"
UNTRUSTED = "untrusted pixels"
TRUTH = "truth"
SPREAD = "uncertainty"
SCHEDULE = ("gamma", "beta", "log-SNR")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultGroup:
    """Layers that came from one run.

    Parameters
    ----------
    name : str
    layers : mapping of str to Layer
        By role.
    """

    name: str
    layers: "Mapping[str, Layer]" = field(repr=False)

    @property
    def rate(self) -> "Layer | None":
        """The noise-rate map."""
        return self.layers.get(RATE)

    @property
    def spread(self) -> "Layer | None":
        """The posterior spread, as what `statistic` says."""
        return self.layers.get(SPREAD)

    @property
    def statistic(self) -> str:
        """Quantity of the spread layer.

        It is "standard deviation", "variance" or "calibrated interval".
        """
        return (
            "standard deviation"
            if self.spread is None
            else str(plugin_metadata(self.spread).get("statistic", "standard deviation"))
        )

    @property
    def mark(self) -> Mapping[str, Any]:
        """Source, provenance and clock that the layers hold; the unit is the reconstruction's."""
        marks = [
            plugin_metadata(self.layers[role])
            for role in (RECONSTRUCTION, RATE)
            if role in self.layers
        ]
        return marks[0] if marks else {}

    @property
    def calibration(self) -> Mapping[str, Any]:
        """How the spread is scaled to an interval; empty where the model is not calibrated."""
        found = self.mark.get("provenance", {}).get("model", {}).get("calibration")
        return found if isinstance(found, Mapping) else {}

    @property
    def factor(self) -> float | None:
        """Half-width of the calibrated interval over the standard deviation.

        Returns None without a calibration.
        """
        return float(self.calibration["factor"]) if "factor" in self.calibration else None

    @property
    def clock(self) -> ClockCurve | None:
        """The clock of the model.

        Returns None for a layer of an older version or of a classical method.
        """
        found = {} if self.rate is None else plugin_metadata(self.rate).get("clock", {})
        try:
            curve = ClockCurve(
                **{
                    name: tuple(float(number) for number in found[name])
                    for name in ("times", "values", "speeds")
                }
            )
        except (KeyError, TypeError, ValueError):
            return None
        return curve if curve.times else None

    @property
    def classical(self) -> bool:
        """Whether a classical method made it, so that it has neither a spread nor a schedule."""
        return self.mark.get("provenance", {}).get("model", {}).get("kind") == "baseline"

    def missing(self) -> tuple[str, ...]:
        """What an inspection needs and is not there, in words."""
        needed = {
            "noise-rate map": self.rate,
            "reconstruction": self.layers.get(RECONSTRUCTION),
            "uncertainty": self.spread,
            "clock": self.clock,
        }
        return tuple(name for name, found in needed.items() if found is None)


def groups_of(layers: "Iterable[Layer]") -> list[ResultGroup]:
    """Results among layers, in the order of their first layers.

    Maps of the schedule are left out, because they follow from a rate map.
    """
    found: dict[str, dict[str, Layer]] = {}
    for layer in layers:
        mark = plugin_metadata(layer)
        if "group" in mark and mark.get("role") not in (None, TRUTH, *SCHEDULE):
            found.setdefault(str(mark["group"]), {})[mark["role"]] = (
                layer  # the topmost, where a result was opened twice
            )
    return [ResultGroup(name=name, layers=by_role) for name, by_role in found.items()]


def layers_of(layers: "Iterable[Layer]", group: str) -> "list[Layer]":
    """Every layer of a result, maps of its schedule among them."""
    return [layer for layer in layers if plugin_metadata(layer).get("group") == group]
