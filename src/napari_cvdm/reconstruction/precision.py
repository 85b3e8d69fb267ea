"""The precision of the network where the user left it open."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from napari_cvdm.core.device import multiplies_bf16, pick_device
from napari_cvdm.core.request import ReconstructionRequest


def resolve_precision(
    request: ReconstructionRequest, begun: Mapping[str, Any] | None = None
) -> ReconstructionRequest:
    """The request with ``precision="auto"`` replaced by what it means here.

    That is bf16 where the device multiplies bf16 matrices in hardware, else fp32.

    Parameters
    ----------
    request : ReconstructionRequest
    begun : mapping, optional
        Settings of the result or the job that the request continues. All samples and all blocks of
        a result are computed with the same precision.

    Returns
    -------
    ReconstructionRequest
        Of precision ``fp32`` or ``bf16``.

    Raises
    ------
    DeviceError
        This machine has no such device.
    """
    device = pick_device(request.device)
    if request.precision != "auto":
        return request
    if begun is not None:
        recorded: Any = begun.get("precision")  # None in a damaged record: the request refuses it
        return replace(request, precision=recorded)
    return replace(request, precision="bf16" if multiplies_bf16(device) else "fp32")
