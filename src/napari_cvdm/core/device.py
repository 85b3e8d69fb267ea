"""Where tensors live: the only module that names an accelerator."""

import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    names = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
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
        raise DeviceError(
            f"device is {name!r}; this machine has {', '.join(devices)}. Use auto, or one of these."
        )
    return torch.device(wanted)


def pick_fourier_device(name: str) -> torch.device:
    """`pick_device` where complex Fourier transforms are whole: the CPU instead of mps."""
    device = pick_device(name)
    return torch.device("cpu") if device.type == "mps" else device


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
    return torch.autocast(
        device.type, torch.bfloat16, enabled={"fp32": False, "bf16": True}[precision]
    )


def to_device(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Copy pixels to a device.

    A copy to a GPU uses pinned memory, so that it runs while the GPU computes.
    """
    tensor = torch.from_numpy(pixels)
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def prefers_sequential(device: torch.device) -> bool:
    """Whether images are convolved as fast one by one as in a batch.

    This is so on a CPU. One by one, each image gives the same bytes whatever else is computed.
    """
    return device.type == "cpu"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's (or the machine's) memory was too small."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in MEMORY_WORDS
    )


def accelerator_lost(error: BaseException) -> bool:
    """Whether an error says that the accelerator failed during work.

    CUDA does not recover from that within the same process.
    """
    return isinstance(error, torch.AcceleratorError) or str(error).startswith("CUDA error")


def release_memory(device: torch.device) -> None:
    """Free cached blocks of the accelerator for other programs and for the next try."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class _LiveStorage(TorchDispatchMode):
    """Add up the bytes of all live tensors, operation by operation.

    PyTorch has no allocator statistics for the CPU.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._alive = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here. To hide this from the compiler, torch would first import it,
        # which takes seconds.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Weights were there before, and a view of one is no new memory.
        self._seen.update(_storages((args, kwargs)))
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._seen:
                self._count(storage)
        return made

    def _count(self, storage: Any) -> None:
        size = storage.nbytes()
        self._seen.add(storage)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self._alive -= size


def _storages(values: Any) -> list[Any]:
    return [
        value.untyped_storage() for value in tree_leaves(values) if isinstance(value, torch.Tensor)
    ]


def peak_memory(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes of tensors that some work needs at its peak, beyond those that are there before.

    Parameters
    ----------
    device : torch.device
    work : callable
        Done once.

    Returns
    -------
    int
        On CUDA, the peak of the allocator. Elsewhere, the tensors that were alive at once, without
        the workspace of a convolution.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _LiveStorage() as alive:
        work()
    return alive.peak


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that some work takes on a device, done once."""
    _synchronize(device)
    started = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - started


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware: CUDA since Ampere, newer CPUs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.8 has none
    found: dict[str, object] = capabilities()
    return device.type == "cpu" and bool(found.get("amx_bf16") or found.get("avx512_bf16"))


def _synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
