"""napari's sign of activity turns slowly while this program computes.

It is a moving picture in the window of the canvas, so that each of its frames draws the whole window anew. Without a graphics card, as on a remote desktop
or a virtual machine, the processor does that, and the run that is announced waits for it (`python -m benchmarks.responsiveness`).
"""

from pathlib import Path

from napari.resources import LOADING_GIF_PATH
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QApplication, QLabel

SLOW_PERCENT, AS_MADE_PERCENT = 20, 100


def signs() -> list[QMovie]:
    """The sign of each window; moving pictures of others are not touched."""
    labels = (widget for widget in QApplication.allWidgets() if isinstance(widget, QLabel))
    return [
        movie
        for label in labels
        if (movie := label.movie()) is not None and Path(movie.fileName()) == Path(LOADING_GIF_PATH)
    ]


def turn(percent: int) -> None:
    """Let it turn so fast, in percent of what it was made for."""
    for movie in signs():
        movie.setSpeed(percent)
