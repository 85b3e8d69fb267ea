"""The provenance of a reconstruction, and whether one run continues another."""

import json
import platform
from collections.abc import Mapping, Sequence
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
from napari_cvdm.io import Fingerprint, check_frame, sha256_of
from napari_cvdm.io.axes import frame_name, read_frame
from napari_cvdm.models.checkpoint import Checkpoint

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
        if (
            prod(image.loop_shape) > 1
        ):  # a blank image may be asked for, but a blank frame of a movie is a fault
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
        image = self._plan.image
        frames = image.array.size // (
            image.array.shape[-1]
            * image.array.shape[-2]
            * (image.array.shape[-3] if "P" in image.axes else 1)
        )
        if self._read == frames:
            return self._fingerprint.value
        return (
            f"{self._fingerprint.value} of the first {self._read} of {frames} frames"
            if image.lazy
            else sha256_of(image.array)
        )


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

    Parameters
    ----------
    input_sha256 : str
        Of the pixels of the image.
    estimated : sequence of mapping
        What was estimated from each frame.
    tile : int
        The smallest that was used [px].
    counts : ndarray of int
        Samples of each frame.
    seconds : float
        Of the whole run.
    """
    settings = dict(plan.settings)
    if counts.min() == counts.max() > 0:
        settings["samples"] = int(counts.max())
    model = dict(method.entry if isinstance(method, Baseline) else model_entry(method))
    fitted: Any = model.pop("calibration", {})
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

    Parameters
    ----------
    provenance : Provenance
    output : mapping
        Unit, axes and pixel size of the images, and what else describes them.
    forward : ForwardCheck, optional
    device : str
        The device that was used in the end.
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


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``provenance.json``."""
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    # The name of a file may be no UTF-8.
    path.write_text(text, encoding="utf-8", errors="replace")


def model_entry(model: Checkpoint) -> dict[str, object]:
    """Name, fingerprint, task, noise scale, training and calibration of a model."""
    card = model.card
    known = {
        "name": card.name,
        "sha256": model.sha256,
        "task": card.task,
        "noise_scale": model.network.config.noise_scale,
    }
    return {**known, "training": dict(card.training), "calibration": dict(card.calibration)}


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
    before, now = (
        json.loads(json.dumps(dict(settings)))
        for settings in (earlier.provenance.settings, plan.settings)
    )
    changed = [name for name in now if name not in FREE_TO_CHANGE and now[name] != before.get(name)]
    if earlier.provenance.model.get("sha256") != model.sha256:
        changed.append("the model's weights")
    if earlier.provenance.model.get("noise_scale", 1.0) != model.network.config.noise_scale:
        changed.append("the model's noise scale")
    if (
        not plan.image.lazy
        and sha256_of(plan.image.array) not in earlier.provenance.inputs.values()
    ):
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
