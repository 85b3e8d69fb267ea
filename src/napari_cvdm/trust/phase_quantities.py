"""What follows from a phase: optical path difference."""

import numpy as np


def optical_path_nm(phase: np.ndarray, wavelength_um: float) -> np.ndarray:
    """Optical path difference [nm] of a phase [rad]: phi lambda0 / 2 pi."""
    return (phase * (1000 * wavelength_um / (2 * np.pi))).astype(np.float32)
