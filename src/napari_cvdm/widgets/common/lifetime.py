"""What a dock leaves behind is cleaned up, however it goes."""

from collections.abc import Callable
from typing import Any
from weakref import finalize, ref

from qtpy.QtCore import QObject


def when_gone(widget: QObject, clean_up: Callable[..., object], *given: object) -> None:
    """Call `clean_up(*given)` once, when Qt destroys a widget or Python frees it.

    Neither `clean_up` nor `given` may refer to the widget, because it would never be freed.
    """
    # napari 0.9 sends no closing event to docked widgets, so this is their only end. A lambda
    # connected to `destroyed` is not enough: the cycle collector may have emptied it before the
    # call, and an exception in a slot ends the program. Python's own register keeps a finalizer.
    end = finalize(widget, clean_up, *given)
    end.atexit = False
    widget.destroyed.connect(end)


def listen(widget: QObject, emitter: Any, method: Callable[..., object]) -> None:
    """Connect a method of a widget to an event of napari, for as long as the widget is there."""
    # napari holds the method weakly, but drops dead references only when it emits the event
    # again, which may never happen: every dock that was closed would leave a reference.
    emitter.connect(method)
    when_gone(widget, _disconnect, ref(emitter), (ref(widget), method.__name__))


def _disconnect(emitter: "ref[Any]", connected: tuple[Any, str]) -> None:
    found = emitter()
    if found is not None:
        found.disconnect(connected)
