"""The precision of the network where the user left it open.

It is measured on the device, once in a process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, Literal

import torch

from napari_cvdm.core.device import benchmark_px, pick_device, seconds_of
from napari_cvdm.core.request import EARLIER, RestoreRequest
from napari_cvdm.models.checkpoint import Checkpoint
from napari_cvdm.models.cvdm import CVDM
from napari_cvdm.models.tiled import network_on
from napari_cvdm.reconstruct.benchmark_tile import BenchmarkTile

Arithmetic = Literal["fp32", "bf16"]
WORTH = 1.2  # times as fast as fp32, which rounds less; a smaller gain is chance on a busy machine
TURNS = 3
_measured: dict[tuple[str, str], Arithmetic] = {}
_one_at_a_time = Lock()  # two threads that measure at once slow each other


def resolve_precision(
    request: RestoreRequest, model: Checkpoint, begun: Mapping[str, Any] | None = None
) -> RestoreRequest:
    """The request with ``precision="auto"`` replaced by what it means here.

    Parameters
    ----------
    request : RestoreRequest
    model : Checkpoint
    begun : mapping, optional
        Settings of the result or the job that the request continues. All samples and all blocks of
        a result are computed with the same precision.

    Returns
    -------
    RestoreRequest
        Of precision ``fp32`` or ``bf16``.

    Raises
    ------
    DeviceError
        This machine has no such device.
    """
    device = pick_device(request.device)
    if request.precision != "auto":
        return request
    return replace(
        request,
        precision=benchmark_precision(model, device)
        if begun is None
        else {**EARLIER, **begun}["precision"],
    )


def benchmark_precision(model: Checkpoint, device: torch.device) -> Arithmetic:
    """The faster precision for a model on a device, measured once in this process."""
    known = (model.sha256, str(device))
    with _one_at_a_time:
        if known not in _measured:
            _measured[known] = faster(*evaluation_seconds(network_on(model.network, device)))
        return _measured[known]


def evaluation_seconds(network: CVDM) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of an evaluation in fp32 and in bf16, measured by turns.

    So other load on the machine affects both alike.

    It is one of the denoiser, or of the mean network where there is no denoiser.
    """
    device = network.residual_scale.device
    side = benchmark_px(device) // network.config.upsampling
    tile = BenchmarkTile(network, (side, side))
    evaluate = tile.step if network.config.diffused else tile.mean_residual
    exact, narrow = partial(evaluate, "fp32"), partial(evaluate, "bf16")
    exact(), narrow()  # the first time, the kernels are chosen
    turns = [(seconds_of(device, exact), seconds_of(device, narrow)) for _ in range(TURNS)]
    return [turn[0] for turn in turns], [turn[1] for turn in turns]


def faster(exact_s: Sequence[float], narrow_s: Sequence[float]) -> Arithmetic:
    """bf16 where its quickest turn is `WORTH` times as fast as that of fp32."""
    return "bf16" if min(exact_s) >= WORTH * min(narrow_s) else "fp32"
