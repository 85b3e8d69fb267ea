"""What lies beyond the frame: US-TIE takes a field for one that repeats, so objects that the frame cuts bend its slow waves.

No measurement inside the frame says how far. What can be said is how far it would be if the objects outside were like those
inside: cut a window out of a larger field of the phase's own kind, where everything around it is known, solve it as if it
repeated, and compare. Each posterior sample carries one such error, so that the spread knows of it.
"""

from dataclasses import dataclass, field
from math import pi

import numpy as np
import torch
from torch import Tensor

CROSSING_SHARE = 0.7  # of the error so drawn: makes spread and error alike on simulated fields, of which a quarter are cut by the frame
SMALLEST_CROSSING = 0.03  # of the contrast's power: objects too smooth to be seen in it cross the frame too
BAND_PX = 4
NOISE_ERRORS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surroundings:
    """Draws of what objects beyond the frame do to US-TIE.

    Parameters
    ----------
    phase : Tensor of shape (Y, X)
        US-TIE [rad].
    share : float
        By which each draw is multiplied, 0 to 1.
    """

    phase: Tensor = field(repr=False)
    share: float

    def drift(self, seed: int, sample: int) -> np.ndarray:
        """Error of US-TIE in one posterior sample; those of samples 2 k and 2 k + 1 are opposite, so that it does not stay in the mean.

        Parameters
        ----------
        seed, sample : int
            Of the run, and the sample's number.

        Returns
        -------
        ndarray of shape (Y, X), float64
            [rad], no mean.
        """
        rng = np.random.default_rng((seed, sample // 2))
        rows, columns = (_mirrored_indices(size, int(rng.integers(2 * size))) for size in self.phase.shape)
        return (1 - 2 * (sample % 2)) * self.share * error_of_repeating(self.phase[rows][:, columns]).numpy()


def _mirrored_indices(size: int, start: int) -> Tensor:
    """Of `size` + 2 pixels from `start` on, in a line that is mirrored at its ends without end."""
    at = (torch.arange(start, start + size + 2)) % (2 * size)
    return torch.where(at < size, at, 2 * size - 1 - at)


def error_of_repeating(surrounded: Tensor) -> Tensor:
    """phi - L^-1 (D phi): a field less what it is taken for when its Laplacian is known inside only, and it is solved as if it repeated.

    D is the Laplacian by differences of neighbours, L^-1 its inverse on the torus. Inside, the error has no Laplacian but a
    constant: it is as smooth as can be.

    Parameters
    ----------
    surrounded : Tensor of shape (Y + 2, X + 2)
        The field with one pixel around it.

    Returns
    -------
    Tensor of shape (Y, X), no mean
    """
    inside = surrounded[1:-1, 1:-1]
    laplacian = surrounded[2:, 1:-1] + surrounded[:-2, 1:-1] + surrounded[1:-1, 2:] + surrounded[1:-1, :-2] - 4 * inside
    height, width = inside.shape
    frequencies = torch.fft.fftfreq(height, dtype=surrounded.dtype), torch.fft.rfftfreq(width, dtype=surrounded.dtype)
    down, across = (2 * torch.cos(2 * pi * frequency) - 2 for frequency in frequencies)
    symbol = down[:, None] + across[None, :]
    symbol[0, 0] = 1
    spectrum = torch.fft.rfft2(laplacian) / symbol
    spectrum[0, 0] = 0
    return inside - inside.mean() - torch.fft.irfft2(spectrum, s=(height, width))


def crossing_share(difference: np.ndarray, sigma: float) -> float:
    """How much of a field's objects crosses the frame, by the contrast in a band along it.

    sqrt(P_band / P_field), P the mean square of the planes' difference without that of the noise.

    Parameters
    ----------
    difference : ndarray of shape (Y, X)
        Of two planes over background.
    sigma : float
        Standard deviation of its noise.

    Returns
    -------
    float
        0.17 to 1: what is smooth crosses unseen.
    """
    band = np.ones(difference.shape, dtype=bool)
    band[BAND_PX:-BAND_PX, BAND_PX:-BAND_PX] = False
    squared = np.square(difference - difference.mean())
    everywhere = float(squared.mean()) - sigma**2
    along = float(squared[band].mean()) - sigma**2 * (1 + NOISE_ERRORS * np.sqrt(2 / band.sum()))
    if everywhere <= NOISE_ERRORS * sigma**2 * np.sqrt(2 / band.size):  # nothing that stands above the noise
        return float(np.sqrt(SMALLEST_CROSSING))
    return float(np.sqrt(np.clip(along / everywhere, SMALLEST_CROSSING, 1)))
