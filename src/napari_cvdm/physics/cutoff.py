"""The cut-off frequency of a widefield microscope, from the spectrum of one of its images."""

import numpy as np
from scipy.optimize import nnls
from scipy.signal.windows import hann

PERIODS_PX = tuple(np.geomspace(1.9, 9.0, 40).tolist())
EXPONENTS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
LOWEST_FREQUENCY = 0.03  # cycles/px: below it are haze and uneven illumination
RINGS = 80
SMALLEST_SIDE_PX = 32
LEAST_EVIDENCE = 20.0  # in log-likelihood: what a transfer function must explain
# Of the microscopes that people have, and in its logarithm.
USUAL_PERIOD_PX, USUAL_SPREAD = (3.3, 0.4)


def ideal_transfer(frequency: np.ndarray, period: float) -> np.ndarray:
    """Transfer function of an aberration-free round pupil.

    With s = f period, it is (2 / pi) (arccos s - s sqrt(1 - s^2)), and 0 beyond the cut-off
    (Goodman, Introduction to Fourier Optics, equation 6-34). `frequency` has any shape, and
    `period` is in the unit of 1 / frequency.
    """
    share = np.clip(frequency * period, 0, 1)
    return 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))


def ring_powers(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean power of a windowed image (Y, X) on rings of frequency.

    The results are frequency [cycles/px], power and number of values, each of shape (R,).
    """
    window = np.outer(hann(image.shape[0], sym=False), hann(image.shape[1], sym=False))
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    frequency = np.hypot(
        np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :]
    )
    kept = (frequency >= LOWEST_FREQUENCY) & (frequency <= 0.5)
    ring = (
        ((frequency[kept] - LOWEST_FREQUENCY) / (0.5 - LOWEST_FREQUENCY) * RINGS)
        .astype(int)
        .clip(max=RINGS - 1)
    )
    counts = np.bincount(ring, minlength=RINGS)
    there = counts > 0
    sums = (
        np.bincount(ring, values, minlength=RINGS)[there]
        for values in (frequency[kept], power[kept])
    )
    mean_frequency, mean_power = (total / counts[there] for total in sums)
    return mean_frequency, mean_power, counts[there]


def estimate_cutoff(image: np.ndarray) -> float | None:
    """Period of the cut-off frequency [px], by maximum likelihood (Whittle).

    The model of the power is P(f) = A f^-a H(f)^2 + N.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        At least 32 px on a side; None for smaller images.

    Returns
    -------
    float or None
        1.9 to 9 px. None where the image has no structure above its noise.
    """
    if min(image.shape) < SMALLEST_SIDE_PX or not np.ptp(image):
        return None
    frequency, power, number = ring_powers(image.astype(np.float64))
    empty = _misfit(power, number, np.ones((len(power), 1)))
    found = {
        (period, exponent): _misfit(
            power,
            number,
            np.stack(
                [
                    frequency**-exponent * ideal_transfer(frequency, period) ** 2,
                    np.ones_like(power),
                ],
                axis=1,
            ),
        )
        for period in PERIODS_PX
        for exponent in EXPONENTS
    }
    if empty - min(found.values()) < LEAST_EVIDENCE:
        return None
    usual = {
        key: misfit + 0.5 * (np.log(key[0] / USUAL_PERIOD_PX) / USUAL_SPREAD) ** 2
        for key, misfit in found.items()
    }
    return min(usual, key=lambda key: usual[key])[0]


def _misfit(power: np.ndarray, number: np.ndarray, design: np.ndarray) -> float:
    """- log-likelihood of ring powers under the best non-negative mixture of the columns."""
    floor = 1e-12 * float(power.max())
    expected = power
    for _ in range(3):  # weights of the model, not of the data
        weight = np.sqrt(number) / np.maximum(expected, floor)
        amplitudes, _ = nnls(design * weight[:, None], power * weight)
        expected = np.maximum(design @ amplitudes, floor)
    return float(np.sum(number * (power / expected + np.log(expected))))
