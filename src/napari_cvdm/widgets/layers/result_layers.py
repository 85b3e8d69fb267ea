"""The layers of a result: made from a reconstruction, or found by what their metadata says."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cvdm.analysis.measure import optical_path_nm
from napari_cvdm.core.result import ClockCurve, ForwardCheck, Reconstruction
from napari_cvdm.core.statistics import INTERVAL, STATISTICS, interior, spread_as
from napari_cvdm.io.limits import parse_json_object, read_bounded
from napari_cvdm.io.result_folder import PROVENANCE
from napari_cvdm.io.zarr_write import open_pyramid, sample_axis
from napari_cvdm.widgets.layers.layer_data import (
    METADATA_KEY,
    LayerData,
    chi2_colormap,
    inner_limits,
    layer_name,
    look_of,
    plugin_metadata,
    signed_colormap,
    spread_look,
)
from napari_cvdm.widgets.layers.placement import Placement, placed_image
from napari_cvdm.widgets.layers.reconstruction import Run

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

# What a layer shows, as its metadata say under "role".
RATE = "noise-rate map"
RECONSTRUCTION = "reconstruction"
SAMPLES = "samples"
SPREAD = "uncertainty"
UNTRUSTED = "untrusted pixels"
TRUTH = "truth"
SCHEDULE = ("gamma", "beta", "log-SNR")
RESIDUAL_ROLE = "residual"
RESIDUAL_LIMITS = (-5.0, 5.0)  # standard deviations, fixed: an image of noise alone is nearly dark
CHI2_ROLE = "local chi-squared"
PATH_ROLE = "optical path difference"
OTHER_ANSWER = "answer by "  # how the role of a layer by another method begins
STORED = "stored"  # the key of the `StoredResult` that a layer was made from
FIRST = (SPREAD, UNTRUSTED, RECONSTRUCTION)  # what a run shows
AT_TIME = {"gamma": "gamma at t", "beta": "beta at t"}  # maps of one time, without an axis of times
SCHEDULE_BORDER_PX = 8  # sets no contrast
CHI2_LIMITS = (0.0, 5.0)  # fixed, so that results can be compared; 1 is noise alone
# Images of a result on disk, the one to look at on top.
DISK_ROLES = {
    "samples": SAMPLES,
    "rate": RATE,
    "std": SPREAD,
    "valid": UNTRUSTED,
    "mean": RECONSTRUCTION,
}
SPREAD_HELP = (
    "Show the spread of the samples in the unit of the image (standard deviation) or squared "
    "(variance)."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredResult:
    """What the layers of a result are made from: the layers that are not shown yet, too."""

    reconstruction: Reconstruction = field(repr=False)
    source: Placement  # of the measured image, its part that was reconstructed
    _made: "dict[str, Layer]" = field(default_factory=dict, repr=False)

    def makers(self) -> dict[str, Callable[[], LayerData]]:
        """How to make each layer that this result has, by role, the one to look at last.

        The samples have a leading axis. Residuals (one for each plane) and local chi-squared are on
        the camera's grid. A phase has its optical path difference.
        """
        result = self.reconstruction
        makers: dict[str, Callable[[], LayerData]] = {}
        if result.samples is not None:
            makers[SAMPLES] = partial(_samples_layer, self)
        makers[RATE] = partial(_rate_layer, self)
        if result.forward is not None and result.forward.residual is not None:
            planes = len(_residuals(result.forward))
            names = [residual_role(number) for number in range(1, planes + 1)]
            makers |= {name: partial(_check_layer, self, name) for name in names}
            if result.forward.local_chi2 is not None:
                makers[CHI2_ROLE] = partial(_check_layer, self, CHI2_ROLE)
        if result.unit == "rad":
            makers[PATH_ROLE] = partial(_path_layer, self)
        return makers | {
            SPREAD: partial(_spread_layer, self, STATISTICS[0]),
            UNTRUSTED: partial(_untrusted_layer, self),
            RECONSTRUCTION: partial(_mean_layer, self),
        }

    def layer(self, role: str) -> "Layer | None":
        """A layer that no viewer holds yet; the same one each time. None for an unknown role."""
        from napari.layers import Layer

        if role not in self._made:
            maker = self.makers().get(role)
            if maker is None:
                return None
            self._made[role] = Layer.create(*maker())
        return self._made[role]

    @property
    def factor(self) -> float | None:
        """Half-width of the calibrated interval over the standard deviation, if calibrated."""
        calibration = self.reconstruction.provenance.model.get("calibration")
        return float(calibration["factor"]) if isinstance(calibration, Mapping) else None


def to_layer_data(
    reconstruction: Reconstruction, source: Placement, statistic: str = INTERVAL
) -> list[LayerData]:
    """The three layers that a result shows. All others are made from them on request.

    They are one group: uncertainty, untrusted pixels, reconstruction. Only the last, which lies on
    top, is visible. `source` is the place of the measured image. The spread of the samples is shown
    as the `statistic`, one of `STATISTICS` or `INTERVAL`; without a calibration, as a standard
    deviation.
    """
    stored = StoredResult(
        reconstruction=reconstruction, source=source.within(reconstruction.region)
    )
    makers = stored.makers()
    return [_spread_layer(stored, statistic), makers[UNTRUSTED](), makers[RECONSTRUCTION]()]


def group_name(reconstruction: Reconstruction, source: Placement) -> str:
    """What all layers of one result share."""
    return f"{title_of(reconstruction, source)} by {reconstruction.provenance.model['name']}"


def title_of(reconstruction: Reconstruction, source: Placement) -> str:
    """What a result is of: the image, and the part of it that was asked for."""
    if reconstruction.region is None:
        return source.name
    top, bottom, left, right = reconstruction.region
    return f"{source.name}, rows {top} to {bottom}, columns {left} to {right}"


def own_name(mark: Mapping[str, Any]) -> str:
    """The name that a layer of a result was given, from its metadata."""
    return layer_name(str(mark["role"]), str(mark.get("title", mark["source"])), mark["unit"])


def spread_unit(unit: str, statistic: str) -> str:
    """Unit of an uncertainty of values in `unit`."""
    return f"{unit}²" if statistic == "variance" else unit


def _layer(
    stored: StoredResult,
    role: str,
    values: np.ndarray,
    unit: str = "",
    *,
    upsampling: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    **look: Any,
) -> LayerData:
    """One layer of a result; an axis of samples or of times comes before those of the source."""
    reconstruction, source = stored.reconstruction, stored.source
    leading = values.ndim > len(reconstruction.axes)
    factor = reconstruction.upsampling if upsampling is None else upsampling
    values, place = placed_image(source, reconstruction.axes, factor, values)
    if leading:
        place = place.with_leading("S", "sample")
    known = {
        "role": role,
        "group": group_name(reconstruction, source),
        "source": source.name,
        "title": title_of(reconstruction, source),
        "unit": unit,
        "provenance": asdict(reconstruction.provenance),
        "clock": asdict(reconstruction.clock),
        "files": dict(source.files),
        **({"channels": list(source.channels)} if source.channels else {}),
        STORED: stored,
        **(metadata or {}),
    }
    keywords = {
        "name": own_name(known),
        "visible": role == RECONSTRUCTION,
        "metadata": {METADATA_KEY: known},
        **place.keywords(),
        **look,
    }
    return values, keywords, "image"


def _begun(stored: StoredResult, values: np.ndarray) -> np.ndarray:
    """Frames that were not begun, in a run that was stopped, are zero and set no contrast."""
    return values[stored.reconstruction.counts > 0]


def _mean_layer(stored: StoredResult) -> LayerData:
    mean, unit = stored.reconstruction.mean, stored.reconstruction.unit
    return _layer(stored, RECONSTRUCTION, mean, unit, **look_of(_begun(stored, mean), unit))


def _spread_layer(stored: StoredResult, statistic: str) -> LayerData:
    unit, factor = stored.reconstruction.unit, stored.factor
    statistic = STATISTICS[0] if statistic == INTERVAL and factor is None else statistic
    spread = spread_as(stored.reconstruction.variance, "variance", statistic, factor)
    look = spread_look(_begun(stored, spread))
    said = {"statistic": statistic}
    return _layer(stored, SPREAD, spread, spread_unit(unit, statistic), metadata=said, **look)


def _untrusted_layer(stored: StoredResult) -> LayerData:
    untrusted = (~stored.reconstruction.valid).astype(np.uint8)
    return (*_layer(stored, UNTRUSTED, untrusted, opacity=0.5)[:2], "labels")


def _samples_layer(stored: StoredResult) -> LayerData:
    result = stored.reconstruction
    look = look_of(_begun(stored, result.mean), result.unit)
    return _layer(stored, SAMPLES, np.asarray(result.samples), result.unit, **look)


def without_border(trusted: np.ndarray) -> np.ndarray:
    """Trusted pixels (..., Y, X) but for a border band.

    At the border of the image the schedule differs so much that it would set the contrast.
    """
    shape = trusted.shape[-2], trusted.shape[-1]
    inner: np.ndarray = trusted & interior(shape, min(SCHEDULE_BORDER_PX, min(shape) // 4))
    return inner


def _rate_layer(stored: StoredResult) -> LayerData:
    result = stored.reconstruction
    inner = without_border(result.valid & (result.counts > 0)[..., None, None])
    limits = inner_limits(result.rate[inner] if inner.any() else result.rate)
    return _layer(stored, RATE, result.rate, colormap="viridis", contrast_limits=limits)


def _path_layer(stored: StoredResult) -> LayerData:
    settings = stored.reconstruction.provenance.settings
    path = optical_path_nm(stored.reconstruction.mean, float(str(settings["wavelength_um"])))
    return _layer(stored, PATH_ROLE, path, "nm", **look_of(_begun(stored, path), "nm"))


def residual_role(number: int) -> str:
    """Role of the residual of a plane, counted from 1."""
    return RESIDUAL_ROLE if number == 1 else f"{RESIDUAL_ROLE} of plane {number}"


def _residuals(check: ForwardCheck) -> list[np.ndarray]:
    """The residual of each plane, in standard deviations of the camera's noise."""
    residual = np.asarray(check.residual)
    if "P" not in check.axes:
        return [residual]
    return list(np.moveaxis(residual, check.axes.index("P"), 0))


def _check_layer(stored: StoredResult, role: str) -> LayerData:
    """What the reconstruction leaves unexplained, or where that exceeds noise."""
    check = stored.reconstruction.forward
    assert check is not None  # else no maker names it
    layer = partial(_layer, stored, role, upsampling=1, metadata={"forward": check.numbers()})
    if role == CHI2_ROLE:
        look = {"colormap": chi2_colormap(), "contrast_limits": CHI2_LIMITS}
        return layer(np.asarray(check.local_chi2), **look)
    planes = _residuals(check)
    number = next(one for one in range(len(planes)) if residual_role(one + 1) == role)
    look = {"colormap": signed_colormap(), "contrast_limits": RESIDUAL_LIMITS}
    return layer(planes[number], "sigma", **look)


def preview_layer_data(reconstruction: Reconstruction, source: Placement) -> LayerData:
    """One layer of a quick look at a part of one frame; it belongs to no result.

    A colour image keeps every axis of its source. Its axes then have the same units as those of the
    layers beside it.
    """
    values, axes = reconstruction.mean, reconstruction.axes
    if values.ndim > len("YX"):
        missing = [number for number, letter in enumerate(source.axes) if letter not in axes]
        values, axes = np.expand_dims(values, missing), source.axes
    place = source.within(reconstruction.region).finer(axes, reconstruction.upsampling)
    known = {
        "role": "preview",
        "source": source.name,
        "unit": reconstruction.unit,
        "provenance": asdict(reconstruction.provenance),
    }
    keywords = {
        "name": layer_name("preview", source.name, reconstruction.unit),
        "metadata": {METADATA_KEY: known},
        **place.keywords(),
        **look_of(values, reconstruction.unit),
    }
    return values, keywords, "image"


def disk_layer_data(path: Path, images: Sequence[str], run: Run) -> list[LayerData]:
    """Layers of a result that was written block by block; all but the reconstruction are hidden.

    They are lazy arrays that are read part by part, with several resolutions where the image is
    large. They lie where the measured layer of the run lies.

    Parameters
    ----------
    path : Path
        An OME-Zarr collection of `reconstruct_by_blocks`.
    images : sequence of str
        Its groups: mean, std, rate, valid, and samples where they were kept.
    """
    return [_disk_layer(path, name, run) for name in DISK_ROLES if name in images]


def _disk_layer(path: Path, name: str, run: Run) -> LayerData:
    levels: list[Any] = []
    # The layer has the axes of the measured one, those of length 1 too.
    axes = run.request.image.axes.replace("P", "")
    for pixels in open_pyramid(path, name):
        leading = ()
        if name == "samples":
            pixels = np.moveaxis(pixels, sample_axis(run.request.image.loop_axes), 0)
            leading = pixels.shape[:1]
        pixels = pixels.reshape((*leading, *run.request.image.loop_shape, *pixels.shape[-2:]))
        pixels, place = placed_image(run.place, axes, run.upsampling, pixels)
        levels.append((pixels == 0).astype(np.uint8) if name == "valid" else pixels)
    if name == "samples":
        place = place.with_leading("S", "sample")
    unit = run.unit if name in ("mean", "std", "samples") else ""
    known = {
        "role": f"{DISK_ROLES[name]} on disk",
        "source": run.place.name,
        "unit": unit,
        "file": str(path / name),
        "provenance": parse_json_object(read_bounded(path / PROVENANCE)),
    }
    data = levels if len(levels) > 1 else levels[0]
    keywords: dict[str, Any] = {
        "name": layer_name(DISK_ROLES[name], f"{run.place.name} ({path.name})", unit),
        "visible": name == "mean",
        "metadata": {METADATA_KEY: known},
        "multiscale": len(levels) > 1,
        **place.keywords(),
    }
    if name == "valid":
        return data, {**keywords, "opacity": 0.5}, "labels"
    # Colours and contrast are those of the first frame in its coarsest resolution.
    coarsest = np.asarray(levels[-1][(0,) * (levels[-1].ndim - 2)])
    if name == "rate":
        inner = coarsest[without_border(np.ones(coarsest.shape, dtype=bool))]
        keywords |= {"colormap": "viridis", "contrast_limits": inner_limits(inner)}
    else:
        keywords |= spread_look(coarsest) if name == "std" else look_of(coarsest, unit)
    return data, keywords, "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultGroup:
    """Layers that came from one run, by role."""

    name: str
    layers: "Mapping[str, Layer]" = field(repr=False)
    # What the layers were made from; None of layers that were read from single files.
    stored: StoredResult | None = field(default=None, repr=False)

    def layer(self, role: str) -> "Layer | None":
        """The layer of a role, also where the viewer does not hold it."""
        if role in self.layers or self.stored is None:
            return self.layers.get(role)
        return self.stored.layer(role)

    @property
    def rate(self) -> "Layer | None":
        """The noise-rate map."""
        return self.layer(RATE)

    @property
    def spread(self) -> "Layer | None":
        """The posterior spread, as what `statistic` says."""
        return self.layer(SPREAD)

    @property
    def statistic(self) -> str:
        """What the spread layer shows: one of `STATISTICS`, or `INTERVAL`."""
        known = {} if self.spread is None else plugin_metadata(self.spread)
        return str(known.get("statistic", STATISTICS[0]))

    @property
    def mark(self) -> Mapping[str, Any]:
        """Source, provenance and clock that the layers hold; the unit is the reconstruction's."""
        mean = self.layers.get(RECONSTRUCTION)
        if mean is not None:
            return plugin_metadata(mean)
        unit = {} if self.stored is None else {"unit": self.stored.reconstruction.unit}
        return {**plugin_metadata(next(iter(self.layers.values()))), **unit}

    @property
    def calibration(self) -> Mapping[str, Any]:
        """How the spread is scaled to an interval; empty where the model is not calibrated."""
        found = self.mark.get("provenance", {}).get("model", {}).get("calibration")
        return found if isinstance(found, Mapping) else {}

    @property
    def factor(self) -> float | None:
        """Half-width of the calibrated interval over the standard deviation, if calibrated."""
        return float(self.calibration["factor"]) if "factor" in self.calibration else None

    @property
    def clock(self) -> ClockCurve | None:
        """The clock of the model; None for a layer of an older version or a classical method."""
        marks = (plugin_metadata(layer) for layer in self.layers.values())
        found: Any = next((mark["clock"] for mark in marks if mark.get("clock")), {})
        names = ("times", "values", "speeds")
        try:
            curve = ClockCurve(**{name: tuple(map(float, found[name])) for name in names})
        except (KeyError, TypeError, ValueError):
            return None
        return curve if curve.times else None

    @property
    def classical(self) -> bool:
        """Whether a classical method made it, so that it has neither a spread nor a schedule."""
        return self.mark.get("provenance", {}).get("model", {}).get("kind") == "baseline"

    def describe_missing(self) -> str:
        """One sentence for the user: what is not there, and what to do."""
        return (
            f"{self.name}: {' and '.join(self.missing())} not among the layers; undo the "
            "removal or reconstruct again."
        )

    def missing(self) -> tuple[str, ...]:
        """What an inspection needs and is not there, in words."""
        needed = {
            RATE: self.rate,
            RECONSTRUCTION: self.layer(RECONSTRUCTION),
            SPREAD: self.spread,
            "clock": self.clock,
        }
        return tuple(name for name, found in needed.items() if found is None)


def groups_of(layers: "Iterable[Layer]") -> list[ResultGroup]:
    """Results among layers, in the order of their first layers.

    Maps of the schedule are left out, because they follow from a rate map.
    """
    found: dict[str, dict[str, Layer]] = {}
    left_out = (None, TRUTH, *SCHEDULE, *AT_TIME.values())
    for layer in layers:
        mark = plugin_metadata(layer)
        if "group" in mark and mark.get("role") not in left_out:
            # The topmost counts, where a result was opened twice.
            found.setdefault(str(mark["group"]), {})[mark["role"]] = layer
    return [
        ResultGroup(name=name, layers=by_role, stored=_stored_of(by_role))
        for name, by_role in found.items()
    ]


def _stored_of(layers: "Mapping[str, Layer]") -> StoredResult | None:
    """The result behind layers by role. While a run replaces another, the mean is the newest."""
    ordered = sorted(layers, key=lambda role: role != RECONSTRUCTION)
    marks = (plugin_metadata(layers[role]) for role in ordered)
    return next((mark[STORED] for mark in marks if STORED in mark), None)


def layers_of(layers: "Iterable[Layer]", group: str) -> "list[Layer]":
    """Every layer of a result, maps of its schedule among them."""
    return [layer for layer in layers if plugin_metadata(layer).get("group") == group]


def choices_of(group: ResultGroup) -> tuple[str, ...]:
    """Ways to show the spread of a result.

    The interval is offered only if the model or the result is calibrated.
    """
    return STATISTICS if group.factor is None else (*STATISTICS, INTERVAL)


def help_of(group: ResultGroup | None) -> str:
    """What the choices mean."""
    if group is None or group.factor is None:
        return f"{SPREAD_HELP}\nThis model is not calibrated: see napari-cvdm calibrate."
    said = group.calibration
    return (
        f"{SPREAD_HELP}\n"
        f"Calibrated interval: {said['level']:.0%} of the errors are below this, "
        f"{group.factor:.3g} times the spread; fitted on {said['set']}."
    )


def show_spread_as(group: ResultGroup, wanted: str) -> None:
    """Show the spread of a result in another way; one that is not there changes nothing."""
    layer = group.spread
    if layer is None or group.statistic == wanted or wanted not in choices_of(group):
        return
    layer.data = spread_as(layer.data, group.statistic, wanted, group.factor)
    unit = spread_unit(str(group.mark["unit"]), wanted)
    mark = plugin_metadata(layer)
    # What the user added to the name stays.
    layer.name = layer.name.replace(own_name(mark), own_name({**mark, "unit": unit}))
    layer.metadata = {**layer.metadata, METADATA_KEY: {**mark, "statistic": wanted, "unit": unit}}
    layer.contrast_limits = spread_look(layer.data)["contrast_limits"]


def put_calibration(viewer: "Viewer", group: ResultGroup, calibration: Mapping[str, Any]) -> None:
    """Write a calibration into the provenance of a result's layers, and show an interval."""
    show_spread_as(group, STATISTICS[0])  # what is shown may be an interval by an older factor
    for layer in layers_of(viewer.layers, group.name):
        mark = plugin_metadata(layer)
        provenance = mark.get("provenance", {})
        known = {
            **provenance,
            "model": {**provenance.get("model", {}), "calibration": dict(calibration)},
        }
        layer.metadata = {**layer.metadata, METADATA_KEY: {**mark, "provenance": known}}
    show_spread_as(group, INTERVAL)
