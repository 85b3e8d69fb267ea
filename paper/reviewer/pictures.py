"""Pictures that no model was trained with, 0 to 1."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOTS_PER_INCH = 100
SPOKES = 24
STAR_RADIUS = 0.3  # of the side: clear of the frame
WORDS = ("no cell", "writes", "letters")


def siemens_star(shape: tuple[int, int]) -> np.ndarray:
    """A star of 24 spokes: every period from wide to none."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in shape)
    angle, radius = np.arctan2(y[:, None], x[None, :]), np.hypot(y[:, None], x[None, :])
    return ((np.sin(SPOKES * angle) > 0) & (radius < STAR_RADIUS * min(shape))).astype(np.float32)


def text(shape: tuple[int, int]) -> np.ndarray:
    """Bright letters on black."""
    figure = Figure(figsize=(shape[1] / DOTS_PER_INCH, shape[0] / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    size = 0.17 * shape[0] * 72 / DOTS_PER_INCH
    figure.text(0.5, 0.5, "\n".join(WORDS), size=size, ha="center", va="center")
    canvas.draw()
    return 1 - np.asarray(canvas.buffer_rgba())[: shape[0], : shape[1], 0].astype(np.float32) / 255


def tissue_section(shape: tuple[int, int]) -> np.ndarray:
    """The stained section of scikit-image with the dark stain made bright: a natural texture."""
    from skimage import color, data
    from skimage.transform import resize

    image = 1 - color.rgb2gray(data.immunohistochemistry())
    return resize(image[:256, :256], shape, anti_aliasing=True).astype(np.float32)


PICTURES = {"Siemens star": siemens_star, "text": text, "stained section": tissue_section}
