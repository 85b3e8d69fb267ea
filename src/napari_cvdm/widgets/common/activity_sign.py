"""napari's activity sign turns slowly while this program computes.

The sign is an animated picture in the canvas window, so each of its frames redraws the whole
window. Without a graphics card, as on a remote desktop or a virtual machine, the processor draws,
and the announced run has to wait for it.
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
