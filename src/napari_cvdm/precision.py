"""Which arithmetic the network computes in where the user left that open: measured on the device, once in a process."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from napari_cvdm.device import DeviceError, knows_bf16, pick_device, seconds_of, telling_px
from napari_cvdm.empty_tile import EmptyTile
from napari_cvdm.model.checkpoint import Checkpoint
from napari_cvdm.model.cvdm import CVDM
from napari_cvdm.model.tiled import placed
from napari_cvdm.request import EARLIER, Precision, RestoreRequest

WORTH = 1.2  # times as fast as fp32, whose pixels are the same whatever the tile; less is no more than chance on a busy machine
TURNS = 3
_measured: dict[tuple[str, str], Precision] = {}


def settled(request: RestoreRequest, model: Checkpoint, begun: Mapping[str, Any] | None = None) -> RestoreRequest:
    """The request with ``precision="auto"`` replaced by what it means here.

    Parameters
    ----------
    request : RestoreRequest
    model : Checkpoint
    begun : mapping, optional
        Settings of the result or the job that the request goes on with: all samples and all blocks of a result are computed alike.

    Returns
    -------
    RestoreRequest
        Of precision ``fp32`` or ``bf16``.

    Raises
    ------
    DeviceError
        This machine has no such device, or the device no bf16.
    """
    device, chosen = pick_device(request.device), request.precision
    if chosen == "auto":
        chosen = measured(model, device) if begun is None else {**EARLIER, **begun}["precision"]
    if chosen == "bf16" and not knows_bf16(device):
        raise DeviceError(f"precision is bf16, which {device} does not compute in; use fp32 or auto, or another device.")
    return replace(request, precision=chosen)


def measured(model: Checkpoint, device: torch.device) -> Precision:
    """The faster precision for a model on a device, as it was found the first time in this process."""
    known = (model.sha256, str(device))
    if known not in _measured:
        _measured[known] = faster(*step_seconds(placed(model.network, device))) if knows_bf16(device) else "fp32"
    return _measured[known]


def step_seconds(network: CVDM) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of an evaluation of the denoiser in fp32 and in bf16, by turns, so that what else the machine does falls on both."""
    device = network.residual_scale.device
    side = telling_px(device) // network.config.upsampling
    tile = EmptyTile(network, (side, side))
    works = [partial(tile.step, precision) for precision in ("fp32", "bf16")]
    for work in works:
        work()  # the first time, the kernels are chosen
    turns = [[seconds_of(device, work) for work in works] for _ in range(TURNS)]
    return [turn[0] for turn in turns], [turn[1] for turn in turns]


def faster(exact_s: Sequence[float], narrow_s: Sequence[float]) -> Precision:
    """bf16 where its quickest turn is `WORTH` times as fast as that of fp32."""
    return "bf16" if min(exact_s) >= WORTH * min(narrow_s) else "fp32"
