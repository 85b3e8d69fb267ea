"""The schedule at any time: lazy maps, and curves at a pixel or over regions.

The maps are computed only when they are shown. gamma(t, x) = exp(-lambda(x) T(t)),
beta(t, x) = lambda(x) dT/dt, half log-SNR l(t, x) = -1/2 log expm1(lambda(x) T(t)).
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np

from napari_cvdm.core.result import ClockCurve, Progress

SHOWN_TIMES = (0.05, 0.95)  # beta and the log-SNR run off to large numbers at the ends of [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScheduleMaps:
    """gamma, beta and half log-SNR at every time of a clock, dimensionless.

    Each is a dask array (K, ..., Y, X), float32, with one chunk for each time and frame.
    """

    gamma: Any = field(repr=False)
    beta: Any = field(repr=False)
    half_log_snr: Any = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScheduleCurves:
    """The schedule at K times, of one pixel or averaged over the pixels of a region; all (K,)."""

    times: np.ndarray = field(repr=False)
    gamma: np.ndarray = field(repr=False)
    beta: np.ndarray = field(repr=False)
    half_log_snr: np.ndarray = field(repr=False)
    pixels: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionCurves:
    """Mean schedules by number of the region.

    `found` is how many regions there are, also where only the first of them were averaged.
    """

    curves: Mapping[int, ScheduleCurves] = field(repr=False)
    found: int


def schedule_at(rate: Any, clock: ClockCurve, time: float) -> tuple[float, ScheduleMaps]:
    """The schedule of a rate map lambda(x) (..., Y, X) at the time of the clock nearest to `time`.

    Returns that time, and maps of the shape of `rate`. Maps with more axes than Y and X are
    computed frame by frame when they are looked at.
    """
    nearest = int(np.argmin(np.abs(np.array(clock.times) - time)))
    value, speed = clock.values[nearest], clock.speeds[nearest]
    if rate.ndim > 2:
        one = ClockCurve(times=(clock.times[nearest],), values=(value,), speeds=(speed,))
        many = schedule_maps(rate, one)
        gamma, beta, level = many.gamma[0], many.beta[0], many.half_log_snr[0]
    else:  # without dask, which would import its clusters to choose among them
        frame = np.asarray(rate, np.float32)
        # float64 numbers of NumPy would make float64 maps.
        gamma, beta = _gamma(frame, np.float32(value)), _beta(frame, np.float32(speed))
        level = _half_log_snr(frame, np.float32(value))
    return clock.times[nearest], ScheduleMaps(gamma=gamma, beta=beta, half_log_snr=level)


def schedule_maps(rate: Any, clock: ClockCurve) -> ScheduleMaps:
    """The schedule of a rate map lambda(x), computed slice by slice when it is looked at.

    `rate` is a NumPy or dask array of shape (..., Y, X).
    """
    frames = da.asanyarray(rate).astype(np.float32, copy=False)
    # A viewer asks for one frame at one time, which is then one chunk.
    frames = frames.rechunk((1,) * (frames.ndim - 2) + frames.shape[-2:])[None]
    along_t = (-1, *[1] * (frames.ndim - 1))
    values, speeds = (
        da.from_array(np.array(numbers, np.float32).reshape(along_t), chunks=1)
        for numbers in (clock.values, clock.speeds)
    )
    gamma, beta, level = (
        da.map_blocks(part, frames, along, dtype=np.float32)
        for part, along in ((_gamma, values), (_beta, speeds), (_half_log_snr, values))
    )
    return ScheduleMaps(gamma=gamma, beta=beta, half_log_snr=level)


def _gamma(rate: np.ndarray, value: Any) -> np.ndarray:
    # In place from here on: one slice costs the memory of one slice.
    exponent = rate * -value
    return np.exp(exponent, out=exponent)


def _beta(rate: np.ndarray, speed: Any) -> np.ndarray:
    return rate * speed


def _half_log_snr(rate: np.ndarray, value: Any) -> np.ndarray:
    """-1/2 log expm1(n), computed as -1/2 (n + log(-expm1(-n))).

    This form does not overflow for large n and has no cancellation for small n. It is infinite
    for n = 0.
    """
    exponent = rate * value
    rest = np.expm1(-exponent)
    with np.errstate(divide="ignore"):
        np.log(np.negative(rest, out=rest), out=rest)
    rest += exponent
    rest *= -0.5
    return rest


def shown_ranges(rate: np.ndarray, clock: ClockCurve) -> dict[str, tuple[float, float]]:
    """Contrast limits of the three maps that hold for every time from 0.05 to 0.95, by field name.

    `rate` is all of the map or a part. It is zero in frames that were not begun, which do not
    count.
    """
    # Lambda has a bound above 0, so 0 means a frame not begun.
    begun = rate[rate > 0]
    low, high = (float(begun.min()), float(begun.max())) if begun.size else (1.0, 1.0)
    inside = [
        index for index, time in enumerate(clock.times) if SHOWN_TIMES[0] <= time <= SHOWN_TIMES[1]
    ] or [len(clock.times) - 1]
    first, last = clock.values[inside[0]], clock.values[inside[-1]]
    noisiest, cleanest = _half_log_snr(np.array([high, low]), np.array([last, first])).tolist()
    # Contrast limits must rise.
    level = (noisiest, cleanest) if noisiest < cleanest else (noisiest - 1, noisiest + 1)
    return {
        "gamma": (0.0, 1.0),
        "beta": (0.0, high * max(clock.speeds[index] for index in inside)),
        "half_log_snr": level,
    }


def pixel_curves(rate: float, clock: ClockCurve) -> ScheduleCurves:
    """The schedule of one pixel, from lambda there."""
    values, speeds = np.array(clock.values), np.array(clock.speeds)
    one = np.array(rate, np.float64)
    return ScheduleCurves(
        times=np.array(clock.times),
        gamma=_gamma(one, values),
        beta=_beta(one, speeds),
        half_log_snr=_half_log_snr(one, values),
    )


def region_curves(
    rate: np.ndarray, labels: np.ndarray, clock: ClockCurve, most: int = 6
) -> Generator[Progress, None, RegionCurves]:
    """Mean of the schedule over every region: of gamma itself, which is not gamma of the mean rate.

    `labels` (Y, X) are the number of the region of each pixel; 0 is none. Only the first `most`
    regions are averaged.

    Raises
    ------
    ValueError
        Labels of another shape.
    """
    if labels.shape != rate.shape:
        raise ValueError(
            f"the regions have {labels.shape} pixels, the rate map {rate.shape}; give regions on "
            "the grid of the rate map."
        )
    found = np.unique(labels[labels > 0])
    numbers, curves = found[:most], {}
    yield Progress(stage="averaging the schedule", done=0, total=len(numbers))
    for done, number in enumerate(numbers, start=1):
        inside = rate[labels == number].astype(np.float64)
        values = [np.array(value) for value in clock.values]
        curves[int(number)] = ScheduleCurves(
            times=np.array(clock.times),
            gamma=np.array([_gamma(inside, value).mean() for value in values]),
            beta=_beta(inside.mean(), np.array(clock.speeds)),
            half_log_snr=np.array([_half_log_snr(inside, value).mean() for value in values]),
            pixels=inside.size,
        )
        yield Progress(stage="averaging the schedule", done=done, total=len(numbers))
    return RegionCurves(curves=curves, found=len(found))
