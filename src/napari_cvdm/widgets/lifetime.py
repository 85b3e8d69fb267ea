"""What a dock leaves behind is cleaned up, however it goes."""

from collections.abc import Callable
from weakref import finalize

from qtpy.QtCore import QObject


def when_gone(widget: QObject, clean_up: Callable[..., object], *given: object) -> None:
    """Call something once, when Qt destroys a widget or Python frees it, whichever comes first.

    A lambda connected to `destroyed` is not enough: the cycle collector may have emptied it by the time that it is called, and an exception in a slot ends
    the program. A finalizer stays whole, because Python's own register holds it.

    Parameters
    ----------
    widget : QObject
        Docked widgets get no closing event from napari 0.9, so this is their only end.
    clean_up : callable
        Called with `given`, neither of which may refer to the widget: it would never be freed.
    """
    end = finalize(widget, clean_up, *given)
    end.atexit = False
    widget.destroyed.connect(end)
