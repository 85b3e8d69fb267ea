"""CVDM for microscopy: a reconstruction together with how far it can be trusted.

Importing this package does not load torch or Qt. The public names below are looked up on first use.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-cvdm")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "Camera": "core.microscope",
    "Microscope": "core.microscope",
    "ImageStack": "core.request",
    "ReconstructionRequest": "core.request",
    "Progress": "core.result",
    "Reconstruction": "core.result",
    "finished": "core.result",
    "TrainRequest": "core.request",
    "load_model": "models.registry",
    "reconstruct": "reconstruction.reconstruct",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    """Import a public name from its home module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'napari_cvdm' has no attribute {name!r}")
    return getattr(import_module(f"napari_cvdm.{_HOMES[name]}"), name)
