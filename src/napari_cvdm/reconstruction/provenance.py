"""The provenance of a reconstruction, its result folder, and whether one run continues another."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from napari_cvdm import __version__
from napari_cvdm.baselines import Baseline
from napari_cvdm.core.plan import Plan, optics_origins
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import ForwardCheck, Provenance, Reconstruction
from napari_cvdm.core.statistics import carried_calibration
from napari_cvdm.io import Fingerprint, check_frame, sha256_of, write_image
from napari_cvdm.io.axes import frame_name, read_frame
from napari_cvdm.io.result_folder import ENDING, LOCAL_CHI2, PROVENANCE, RESIDUAL
from napari_cvdm.io.zarr_write import NOTES_KEY
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.schedule import gamma_and_beta

NO_UNIT = "dimensionless"
# These may differ between a run and the one that continues it. They change the cost, or what is
# shown, but no pixel.
FREE_TO_CHANGE = ("samples", "keep_samples", "schedule_points", "device", "tile")


class ProvenanceRecorder:
    """Reads the frames of a request, and keeps what their reader should know."""

    def __init__(self, plan: Plan, method: Checkpoint | Baseline) -> None:
        self._plan, self._method = plan, method
        self._fingerprint = Fingerprint(plan.image.array)
        self._estimated: list[Mapping[str, Any]] = []
        self._tiles: list[int] = []
        self._read = 0

    def read(self, index: tuple[int, ...]) -> np.ndarray:
        """The pixels (P, Y, X) of the next frame; ImageFileError where they cannot be used."""
        image = self._plan.image
        self._read += 1
        pixels = read_frame(image, index)
        self._fingerprint.add(pixels)
        # A blank image may be asked for, but a blank frame of a movie is a fault.
        if prod(image.loop_shape) > 1:
            check_frame(pixels, frame_name(image, index))
        return pixels

    @property
    def estimated(self) -> tuple[Mapping[str, Any], ...]:
        """What was estimated from each frame that is finished."""
        return tuple(self._estimated)

    def skip(self, reason: str) -> None:
        """Keep why a frame could not be reconstructed."""
        self._estimated.append({"skipped": reason})

    def finish(self, estimated: Mapping[str, Any], tile: int) -> None:
        """Keep what was estimated from a frame, and the tile that was used."""
        self._estimated.append(dict(estimated))
        self._tiles.append(tile)

    def provenance(
        self, warnings: tuple[str, ...], seconds: float, counts: np.ndarray
    ) -> Provenance:
        """Everything needed to compute the same pixels again.

        For a run that was stopped, `samples` is the number that every frame has.
        """
        return make_provenance(
            self._plan,
            self._method,
            self._input_hash(),
            self._estimated,
            min(self._tiles, default=self._plan.tile),
            counts,
            warnings,
            seconds,
        )

    def _input_hash(self) -> str:
        image, value = self._plan.image, self._fingerprint.value
        frames = prod(image.loop_shape)
        if self._read == frames:
            return value
        if not image.lazy:
            return sha256_of(image.array)
        return f"{value} of the first {self._read} of {frames} frames"


def make_provenance(
    plan: Plan,
    method: Checkpoint | Baseline,
    input_sha256: str,
    estimated: Sequence[Mapping[str, Any]],
    tile: int,
    counts: np.ndarray,
    warnings: Sequence[str],
    seconds: float,
) -> Provenance:
    """Everything needed to compute the same pixels again, whole or block by block.

    `input_sha256` is of the pixels of the image, `estimated` was found in each frame, and `tile` is
    the smallest that was used [px]. `counts` are the samples of each frame, and `seconds` those of
    the whole run.
    """
    settings = dict(plan.settings)
    # A stopped run has fewer than the plan asked for.
    if counts.min() == counts.max() > 0:
        settings["samples"] = int(counts.max())
    model = dict(method.entry if isinstance(method, Baseline) else model_entry(method))
    fitted: Any = model.pop("calibration", {})
    # Of the frame with the fewest samples, where the interval must be widest.
    carried = carried_calibration(fitted, int(counts.min()), plan.steps, plan.sampler)
    return Provenance(
        inputs={plan.image.source: input_sha256},
        model={**model, **({"calibration": carried} if carried else {})},
        settings=settings,
        estimated={"frames": list(estimated), "tile_used": tile},
        versions={
            "napari-cvdm": __version__,
            **{name: version(name) for name in ("torch", "numpy", "scipy", "tifffile")},
        },
        timings_s={"total": round(seconds, 3)},
        origins=optics_origins(plan),
        warnings=(*warnings, *short_memory_warning(tile, plan.tile)),
    )


def provenance_record(
    provenance: Provenance, output: Mapping[str, Any], forward: ForwardCheck | None, device: str
) -> dict[str, Any]:
    """What ``provenance.json`` holds beside any result, a folder or an OME-Zarr.

    `output` describes the images: unit, axes, pixel size. `device` was used in the end.
    """
    known = asdict(provenance)
    return {
        **known,
        "pixels_sha256": known["inputs"],
        "versions": {"python": platform.python_version(), **known["versions"]},
        "machine": {
            "device": device,
            "platform": platform.platform(),
            "processor": platform.machine(),
        },
        "output": dict(output),
        "forward": None if forward is None else forward.numbers(),
    }


def write_images(
    folder: Path,
    reconstruction: Reconstruction,
    place: Mapping[str, float],
    channels: Sequence[str] = (),
) -> list[str]:
    """Write every image of a reconstruction as float32 OME-TIFF; return the names of the files.

    The folder exists. `place` and `channels` are those of the input, see `ImageStack`; what is not
    known of its place is 0. ImageFileError where the disk is full or the folder is protected.
    """
    # A finer grid starts half a pixel before that of the input.
    coarse_um = reconstruction.pixel_um * reconstruction.upsampling
    top, _, left, _ = reconstruction.region or (0, 0, 0, 0)
    y_um, x_um = place.get("y_um", 0.0) + top * coarse_um, place.get("x_um", 0.0) + left * coarse_um
    shift = -(reconstruction.upsampling - 1) / 2 * reconstruction.pixel_um
    names, source = [], next(iter(reconstruction.provenance.inputs), "")

    def write(name: str, pixels: np.ndarray, axes: str, unit: str, **grid: Any) -> None:
        write_image(
            folder / f"{name}{ENDING}",
            pixels,
            axes=axes,
            unit=unit,
            name=name,
            z_step_um=place.get("z_step_um") if "Z" in axes else None,
            z_um=place.get("z_um") if "Z" in axes else None,
            t_step_s=place.get("frame_interval_s") if "T" in axes else None,
            channels=channels,
            times=reconstruction.schedule_clock.times if "K" in axes else None,
            # So that it is known as a result also where it lies alone.
            # As ASCII: a name of a file need not be text.
            notes={NOTES_KEY: json.dumps({"role": name, "source": source})},
            **grid,
        )
        names.append(f"{name}{ENDING}")

    fine = {"pixel_um": reconstruction.pixel_um, "offset_um": (y_um + shift, x_um + shift)}
    for name, pixels, axes, unit in _images_of(reconstruction):
        write(name, pixels, axes, unit, **fine)
    if (check := reconstruction.forward) is not None:
        # The residual and its local chi-squared are on the camera's grid.
        camera = {"pixel_um": coarse_um, "offset_um": (y_um, x_um)}
        if check.residual is not None:
            write(RESIDUAL, check.residual, check.axes, NO_UNIT, **camera)
        if check.local_chi2 is not None:
            write(LOCAL_CHI2, check.local_chi2, check.axes.replace("P", ""), NO_UNIT, **camera)
    return names


def _images_of(reconstruction: Reconstruction) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Name, pixels, axes and unit of everything on the grid of the result.

    ``valid`` is 1 where the result can be trusted, else 0.
    """
    axes, unit = reconstruction.axes, reconstruction.unit
    yield "mean", reconstruction.mean, axes, unit
    yield "std", reconstruction.std, axes, unit
    yield "variance", reconstruction.variance, axes, f"{unit}^2"
    if reconstruction.interval is not None:
        yield "interval", reconstruction.interval, axes, unit
    yield "rate", reconstruction.rate, axes, NO_UNIT
    yield "valid", reconstruction.valid, axes, NO_UNIT
    if reconstruction.schedule_clock.times:
        gamma, beta = gamma_and_beta(reconstruction.rate, reconstruction.schedule_clock)
        yield "gamma", gamma, "K" + axes, NO_UNIT
        yield "beta", beta, "K" + axes, NO_UNIT
    if reconstruction.samples is not None:
        yield "samples", reconstruction.samples, "S" + axes, unit


def write_provenance(
    folder: Path,
    reconstruction: Reconstruction,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    timings_s: Mapping[str, float],
    device: str,
) -> None:
    """Write ``provenance.json``: everything needed to make the same pixels again.

    `settings` are all options by name; they take precedence over those of the reconstruction, which
    add what was left out. `inputs` are path and SHA-256 of every file, by option, `timings_s`
    seconds by stage, and `device` the one that was used in the end.
    """
    output = {
        "unit": reconstruction.unit,
        "axes": reconstruction.axes,
        "pixel_um": reconstruction.pixel_um,
        "times": reconstruction.schedule_clock.times,
        "clock": asdict(reconstruction.clock),
        "counts": reconstruction.counts.tolist(),
    }
    record = provenance_record(reconstruction.provenance, output, reconstruction.forward, device)
    record["inputs"] = dict(inputs)
    record["settings"] |= settings
    record["timings_s"] = {name: round(seconds, 3) for name, seconds in timings_s.items()}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # The name of a file may be no UTF-8.
    (folder / PROVENANCE).write_text(text, encoding="utf-8", errors="replace")


def file_sha256(path: Path) -> str:
    """Fingerprint of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_result(
    folder: Path,
    reconstruction: Reconstruction,
    place: Mapping[str, float],
    files: Mapping[str, str],
    *,
    separate_planes: bool = False,
    channels: Sequence[str] = (),
) -> None:
    """Write into a folder what ``napari-cvdm restore`` writes there.

    Parameters
    ----------
    place : mapping
        Of the measured image, see `write_images`.
    files : mapping of str to str
        Files that the image was read from, by option of the command line, where they are known.
    separate_planes : bool
        Whether each defocus plane was an image of its own.
    channels : sequence of str
        Names of the channels of the measured image.
    """
    inputs: dict[str, Any] = {"image2": {}} if separate_planes else {}
    inputs |= {
        role: {"path": name, "file_sha256": file_sha256(Path(name))}
        for role, name in files.items()
        if Path(name).is_file()
    }
    provenance = reconstruction.provenance
    write_images(folder, reconstruction, place, channels)
    device = str(provenance.settings.get("device", ""))
    write_provenance(folder, reconstruction, {}, inputs, provenance.timings_s, device)


def model_entry(model: Checkpoint) -> dict[str, object]:
    """Name, fingerprint, task, noise scale, training and calibration of a model."""
    card = model.card
    return {
        "name": card.name,
        "sha256": model.sha256,
        "task": card.task,
        "noise_scale": model.network.config.noise_scale,
        "training": dict(card.training),
        "calibration": dict(card.calibration),
    }


def short_memory_warning(used: int, asked: int) -> tuple[str, ...]:
    """One sentence where tiles had to be smaller than asked for."""
    if used >= asked:
        return ()
    return (
        f"the memory was short: tiles of {used} px were used in place of {asked}, which cost "
        "time, and moved pixels by no more than rounding.",
    )


def check_continues(plan: Plan, model: Checkpoint, earlier: Reconstruction) -> None:
    """RequestError unless a plan is that of an earlier result, with more samples."""
    # As JSON has them, since the earlier result may come from a file.
    before, now = (
        json.loads(json.dumps(dict(settings)))
        for settings in (earlier.provenance.settings, plan.settings)
    )
    changed = [name for name in now if name not in FREE_TO_CHANGE and now[name] != before.get(name)]
    if earlier.provenance.model.get("sha256") != model.sha256:
        changed.append("the model's weights")
    if earlier.provenance.model.get("noise_scale", 1.0) != model.network.config.noise_scale:
        changed.append("the model's noise scale")
    inputs = earlier.provenance.inputs.values()
    if not plan.image.lazy and sha256_of(plan.image.array) not in inputs:
        changed.append("the image")
    if changed:
        raise RequestError(
            f"samples can be added only to the same reconstruction; {', '.join(changed)} changed "
            "since. Start a new run."
        )
    least, most = int(earlier.counts.min()), int(earlier.counts.max())
    if plan.samples <= least or plan.samples < most:
        raise RequestError(
            f"samples is {plan.samples}, and the earlier result has {most} already; ask for more."
        )
    if plan.keep_samples and (earlier.samples is None or len(earlier.samples) < most):
        raise RequestError(
            "the earlier result did not keep its samples, so they cannot be kept now; leave "
            "keep_samples out, or start a new run."
        )
