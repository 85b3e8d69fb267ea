"""napari's sign of activity turns slowly while this program computes.

It is a moving picture in the window of the canvas, so that each of its 25 frames a second draws the whole window anew. Without a graphics card, as on a
remote desktop or a virtual machine, the processor does that, and the run that is announced waits for it (`python -m benchmarks.responsiveness`).
"""

from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QApplication, QLabel

SLOW_PERCENT, AS_MADE_PERCENT = 20, 100


def signs() -> list[QMovie]:
    """Moving pictures in labels of this program's windows."""
    labels = (widget for widget in QApplication.allWidgets() if isinstance(widget, QLabel))
    return [movie for label in labels if (movie := label.movie()) is not None]


def turn(percent: int) -> None:
    """Let them turn so fast, in percent of what they were made for."""
    for movie in signs():
        movie.setSpeed(percent)
