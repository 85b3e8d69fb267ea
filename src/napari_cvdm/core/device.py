"""Where tensors live: the only module that names an accelerator."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# What torch's CPU allocator says on Windows and on Linux, the C++ library, and oneDNN.
MEMORY_WORDS = (
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)


class DeviceError(ValueError):
    """A device that this machine does not have."""


def available_devices() -> tuple[str, ...]:
    """Names that `pick_device` accepts on this machine, best first; ``cpu`` is always included."""
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*(f"cuda:{index}" for index in gpus), *mps, "cpu")


def pick_device(name: str) -> torch.device:
    """The device for a name: ``auto`` (the best), ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.

    DeviceError if the name is unknown, or this machine has no such device.
    """
    devices = available_devices()
    if name == "auto":
        return torch.device(devices[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in devices:
        raise DeviceError(
            f"device is {name!r}; this machine has {', '.join(devices)}. Use auto, or one of these."
        )
    return torch.device(wanted)


def pick_fourier_device(name: str) -> torch.device:
    """`pick_device` where complex Fourier transforms are whole: the CPU instead of mps."""
    device = pick_device(name)
    return torch.device("cpu") if device.type == "mps" else device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the network: ``bf16`` casts convolutions, ``fp32`` casts nothing."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled={"fp32": False, "bf16": True}[precision]
    )


def to_device(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Copy pixels to a device; to a GPU from pinned memory, so that it computes meanwhile."""
    tensor = torch.from_numpy(pixels)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def prefers_sequential(device: torch.device) -> bool:
    """Whether images are convolved as fast one by one as in a batch.

    This is so on a CPU. One by one, each image gives the same bytes whatever else is computed.
    """
    # A batch of float32 images leaves a CPU's cache, and each image takes longer.
    return device.type == "cpu"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's (or the machine's) memory was too small."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in MEMORY_WORDS
    )


def accelerator_lost(error: BaseException) -> bool:
    """Whether the accelerator failed, which CUDA does not recover from in the same process."""
    return isinstance(error, torch.AcceleratorError) or str(error).startswith("CUDA error")


def release_memory(device: torch.device) -> None:
    """Free cached blocks of the accelerator for other programs and for the next try."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that some work takes on a device, done once."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    # A GPU runs behind: without this, only its launches would be timed.
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware: CUDA since Ampere, newer CPUs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.8 has none
    found: dict[str, object] = capabilities()
    return device.type == "cpu" and bool(found.get("amx_bf16") or found.get("avx512_bf16"))
