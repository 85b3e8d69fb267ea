"""What comes back: frozen results, in NumPy."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

import numpy as np

NUMBERS = (
    "chi2",
    "unexplained",
    "estimate_chi2",
    "estimate_outside",
    "gain",
    "rsp",
    "rse",
    "limit",
    "verdict",
    "axes",
)
WORSE = 1.25  # times the chi-squared of the deconvolution: more is no matter of noise
# Keeping half of the noise gives 0.25. The true phase gives as little as 0.45 where a transmission
# is fitted.
LEAST_CHI2 = 0.3
BLIND_SPOT = (
    "The check is blind to detail below the optical limit: what it finds explained may still be "
    "invented there."
)


Result = TypeVar("Result")
Given = TypeVar("Given")
Made = TypeVar("Made")


def finished(steps: Generator[object, Any, Result]) -> Result:
    """Carry long work out to its end without showing its progress, and return what comes of it."""
    # A for loop would drop what the generator returns.
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def map_steps(
    work: Generator[Given, None, Result], change: Callable[[Given], Made]
) -> Generator[Made, None, Result]:
    """The same work, each of its steps changed."""
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield change(step)


def name_stages(name: str, work: Generator[str, None, Result]) -> Generator[str, None, Result]:
    """The same work; each stage begins with `name`, as in ``name, step 3 of 10``."""
    return map_steps(work, lambda stage: f"{name}, {stage}" if stage else name)


class Stop(Enum):
    """What may be sent into a running reconstruction; to cancel it, stop to iterate."""

    KEEP = "keep the samples that are finished"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameView:
    """The current state of one frame.

    It is the mean and variance of the finished samples, or the first sample while it is made, or
    the answer of a fast classical method before.

    Parameters
    ----------
    index : tuple of int
        Of the frame, along the axes that are looped over.
    samples : int
        Samples that are finished; 0 before the first is.
    mean, variance, rate : ndarray of shape (Y, X), float32
        As in `Reconstruction`; the variance is zero with fewer than two samples.
    valid : ndarray of shape (Y, X), bool
    """

    index: tuple[int, ...]
    samples: int
    mean: np.ndarray = field(repr=False)
    variance: np.ndarray = field(repr=False)
    rate: np.ndarray = field(repr=False)
    valid: np.ndarray = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far long work has come.

    Parameters
    ----------
    stage : str
        What is being done now, in words.
    done : float
        Network evaluations (or steps) finished, ``0 <= done <= total``. It never falls during a
        run. Finished tiles are a fraction of an evaluation.
    total : int
        Network evaluations (or steps) planned.
    view : callable, optional
        () -> FrameView: the current state, made only on request. Call it before the next step, in
        the thread that iterates.
    frame_done : bool
        Whether a frame has all its samples now; its `view` is what the result will hold.
    """

    stage: str
    done: float
    total: int
    view: Callable[[], FrameView] | None = field(default=None, repr=False, compare=False)
    frame_done: bool = False


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
    origins : mapping
        Where each known value of optics came from.
    warnings : tuple of str
        Reasons to doubt the result, in words.
    quantitative : bool
        Whether numbers may be taken from the pixels.
    not_quantitative_because : tuple of str
        Why not, in words.
    quality_flag : {"green", "amber", "red", ""}
        Quality flag: nothing found, reasons to doubt, or not to be used for quantification. "" in
        results of older versions.
    quality_reasons : tuple of str
        Reasons for the flag, the gravest first.
    """

    inputs: Mapping[str, str]
    model: Mapping[str, object]
    settings: Mapping[str, object]
    estimated: Mapping[str, object]
    versions: Mapping[str, str]
    timings_s: Mapping[str, float]
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    quantitative: bool = True
    not_quantitative_because: tuple[str, ...] = ()
    quality_flag: str = ""
    quality_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCurve:
    """The sampled clock of a model.

    With a rate map lambda(x), it gives the schedule at every time and pixel:

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


NO_CLOCK = ClockCurve(times=(), values=(), speeds=())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForwardCheck:
    """The reconstruction imaged once more, against what the camera measured.

    Parameters
    ----------
    residual : ndarray of shape (..., Y, X) or (..., P, Y, X), float32, or None
        (measured - predicted) / sigma of the mean on the grid of the camera, signed, dimensionless.
        None where the check was not possible, 0 in frames that were not begun.
    local_chi2 : ndarray of shape (..., Y, X), float32, or None
        Chi-squared of the neighbourhood of each camera pixel, over both planes of a phase,
        dimensionless. About 1 where only noise is left, 0 where nothing was compared. None where
        `residual` is, and in results of older versions.
    axes : str
        Axes of `residual`; `local_chi2` has no P.
    chi2 : float, optional
        Reduced chi-squared of the mean, that is, the mean of the squared residual over valid
        pixels. About 1 where only noise is left.
    frame_chi2, sample_chi2 : ndarray of shape (...), float
        Of the mean, and the average over the samples, for each frame; NaN where there is none.
    unexplained : float, optional
        Share of the measured structure above the noise that is not explained, 0 to 1 and more. It
        is (chi2 - 1) / (chi2_0 - 1), with chi2_0 of an empty reconstruction. None where the field
        has no structure above the noise.
    estimate_chi2 : float, optional
        Of the deconvolution that a super-resolved image was made from, alone.
    estimate_outside : float, optional
        Share of the valid pixels where that deconvolution lies outside the calibrated interval of
        the result.
    gain : float, optional
        Factor by which the reconstruction would have to be multiplied, median over frames. It is 1
        where the flux is right.
    rsp, rse : float, optional
        Resolution-scaled Pearson correlation and error (SQUIRREL; error in units of the measured
        image), average over frames. For a phase, the correlation and the error of the propagated
        planes. Both are blind below the optical limit.
    limit : float
        Largest chi-squared that counts as explained.
    verdict : str
        What this means, in words; where the check was not possible, why.
    """

    residual: np.ndarray | None = field(default=None, repr=False)
    local_chi2: np.ndarray | None = field(default=None, repr=False)
    axes: str = ""
    chi2: float | None = None
    frame_chi2: np.ndarray = field(default_factory=lambda: np.full((), np.nan), repr=False)
    sample_chi2: np.ndarray = field(default_factory=lambda: np.full((), np.nan), repr=False)
    unexplained: float | None = None
    estimate_chi2: float | None = None
    estimate_outside: float | None = None
    gain: float | None = None
    rsp: float | None = None
    rse: float | None = None
    limit: float
    verdict: str

    @property
    def possible(self) -> bool:
        """Whether the optics were known and there were pixels to compare."""
        return self.chi2 is not None

    @property
    def beaten(self) -> bool:
        """Whether the deconvolution alone explains the measured image clearly better."""
        return (
            self.chi2 is not None
            and self.estimate_chi2 is not None
            # Below 1 an estimate fits noise, which is no merit.
            and self.chi2 > WORSE * max(self.estimate_chi2, 1.0)
        )

    @property
    def explained(self) -> bool:
        """Whether the check was possible and left about as much as the noise.

        A result that agrees with an image to much less than its noise contains that noise.
        """
        return self.chi2 is not None and LEAST_CHI2 <= self.chi2 <= self.limit

    def numbers(self) -> dict[str, object]:
        """Everything but the images, as JSON has it: lists for arrays, None for NaN."""
        frames = {name: _listed(getattr(self, name)) for name in ("frame_chi2", "sample_chi2")}
        return {name: getattr(self, name) for name in NUMBERS} | frames | {"blind_spot": BLIND_SPOT}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
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
    samples : ndarray of shape (N, ..., Y, X), float32, optional
        Every posterior sample.
    counts : ndarray of shape (...), int
        Samples of each frame. Fewer than requested if the run was stopped, 0 for a frame that was
        not begun.
    region : tuple of int, optional
        (top, bottom, left, right) of the part of the input that this is, in input pixels. None for
        all of it.
    valid : ndarray of shape (..., Y, X), bool
        False where the result should not be trusted (border band, saturation, dark aperture).
    provenance : Provenance
        How it was made.
    clock : ClockCurve
        With `rate` it gives gamma and beta at any time, without a stack of all times in memory.
    schedule_clock : ClockCurve
        The clock at the ``schedule_points`` times at which gamma and beta are written. Empty if
        there are none, and in a result that was read from a folder.
    forward : ForwardCheck, optional
        Comparison of the result, imaged again, with the camera's image. None in results of older
        versions.
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
    schedule_clock: ClockCurve = field(default=NO_CLOCK, repr=False)
    samples: np.ndarray | None = field(default=None, repr=False)
    counts: np.ndarray = field(repr=False)
    region: tuple[int, int, int, int] | None = None
    forward: ForwardCheck | None = None

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of the posterior samples, in `unit`."""
        return np.sqrt(self.variance)

    @property
    def interval(self) -> np.ndarray | None:
        """Half-width of the calibrated interval about the mean, in `unit`.

        It is factor times max(std, floor). None if the model is not calibrated.
        """
        calibration = self.provenance.model.get("calibration")
        if not isinstance(calibration, Mapping):
            return None
        return compute_half_width(calibration, self.std)


def compute_half_width(calibration: Mapping[str, Any], std: np.ndarray) -> np.ndarray:
    """Half-width of the calibrated interval: factor times max(std, floor), in the unit of `std`."""
    width: np.ndarray = np.float32(calibration["factor"]) * np.maximum(
        std, np.float32(calibration["floor"])
    )
    return width


def _listed(values: np.ndarray) -> object:
    # JSON has no NaN.
    return np.where(np.isnan(values), None, values.astype(object)).tolist()  # type: ignore[call-overload]
