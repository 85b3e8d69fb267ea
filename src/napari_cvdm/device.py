"""Where tensors live: the only module that names an accelerator."""

import torch


class DeviceError(ValueError):
    """A device that this machine does not have."""


def available_devices() -> tuple[str, ...]:
    """Names that `pick_device` accepts on this machine, the best first, ``cpu`` always among them."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return (*names, "cpu")


def pick_device(name: str) -> torch.device:
    """The device for a name.

    Parameters
    ----------
    name : str
        ``auto`` (the best there is), ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.

    Returns
    -------
    torch.device

    Raises
    ------
    DeviceError
        The name is unknown, or this machine has no such device.
    """
    devices = available_devices()
    if name == "auto":
        return torch.device(devices[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in devices:
        raise DeviceError(f"device is {name!r}; this machine has {', '.join(devices)}. Use auto, or one of these.")
    return torch.device(wanted)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the network alone: ``bf16`` casts convolutions, ``fp32`` casts nothing.

    Parameters
    ----------
    device : torch.device
    precision : {"fp32", "bf16"}

    Returns
    -------
    context manager
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's (or the machine's) memory was too small."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error)


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the accelerator, so that other programs (and the next try) can have them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
