"""What comes back: frozen results, in NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far long work has come.

    Parameters
    ----------
    stage : str
        What is being done now, in words.
    done, total : int
        Network evaluations (or steps) finished and planned; ``0 <= done <= total``.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything needed to make the same pixels again.

    Parameters
    ----------
    inputs : mapping
        Name and SHA-256 of every input image.
    model : mapping
        Name, SHA-256, task and recipe of the model.
    settings : mapping
        Every setting by its request name, after defaults and file metadata were filled in.
    estimated : mapping
        What was estimated from the image (background, intensity scale), one entry for each frame.
    versions : mapping
        Version of this package and of the libraries that compute.
    timings_s : mapping
        Seconds by stage.
    warnings : tuple of str
        Reasons to doubt the result, in words.
    """

    inputs: Mapping[str, str]
    model: Mapping[str, object]
    settings: Mapping[str, object]
    estimated: Mapping[str, object]
    versions: Mapping[str, str]
    timings_s: Mapping[str, float]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCurve:
    """The clock of a model, sampled: with a rate map lambda(x) it gives the schedule at every time and pixel.

    gamma(t, x) = exp(-lambda(x) T(t)), beta(t, x) = lambda(x) dT/dt.

    Parameters
    ----------
    times : tuple of float
        t in (0, 1], rising.
    values : tuple of float
        T(t), rising from above 0 to 1.
    speeds : tuple of float
        dT/dt.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]
    speeds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restoration:
    """A reconstruction with its posterior spread and its schedule.

    Parameters
    ----------
    mean, variance : ndarray of shape (..., Y, X), float32
        Mean and unbiased variance of the posterior samples, in `unit` and `unit` squared.
    rate : ndarray of shape (..., Y, X), float32
        The learned noise-rate map lambda(x), dimensionless. Not an uncertainty.
    axes : str
        Axes of `mean`.
    unit : str
        ``rad`` for phase, ``counts`` for fluorescence.
    pixel_um : float
        Pixel size of the output [um].
    upsampling : int
        Output pixels for one input pixel along Y and X.
    gamma, beta : ndarray of shape (K, ..., Y, X), float32, optional
        Schedule maps at `times`.
    times : tuple of float
        The K times in (0, 1].
    samples : ndarray of shape (N, ..., Y, X), float32, optional
        Every posterior sample.
    valid : ndarray of shape (..., Y, X), bool
        False where the result should not be trusted (border band, saturation, dark aperture).
    provenance : Provenance
        How it was made.
    clock : ClockCurve
        With `rate` it gives gamma and beta at any time, without a stack of all times in memory.
    """

    mean: np.ndarray = field(repr=False)
    variance: np.ndarray = field(repr=False)
    rate: np.ndarray = field(repr=False)
    axes: str
    unit: str
    pixel_um: float
    upsampling: int
    valid: np.ndarray = field(repr=False)
    provenance: Provenance = field(repr=False)
    clock: ClockCurve = field(repr=False)
    gamma: np.ndarray | None = field(default=None, repr=False)
    beta: np.ndarray | None = field(default=None, repr=False)
    times: tuple[float, ...] = ()
    samples: np.ndarray | None = field(default=None, repr=False)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the posterior samples, in `unit`."""
        return np.sqrt(self.variance)
