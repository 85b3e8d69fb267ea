"""What a dock leaves behind is cleaned up, however it goes."""

from collections.abc import Callable
from typing import Any
from weakref import finalize, ref

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


def listen(widget: QObject, emitter: Any, method: Callable[..., object]) -> None:
    """Connect a method of a widget to an event of napari, for as long as the widget is there.

    napari refers to it weakly, but drops what is dead only when the event is emitted next: of a layer that is renamed, or of a theme, that may be never, and
    every dock that was opened and closed would leave something.

    Parameters
    ----------
    widget : QObject
    emitter : EventEmitter
        Such as ``viewer.events.theme``.
    method : callable
        Bound to the widget.
    """
    emitter.connect(method)
    when_gone(widget, _disconnect, ref(emitter), (ref(widget), method.__name__))


def _disconnect(emitter: "ref[Any]", connected: tuple[Any, str]) -> None:
    found = emitter()
    if found is not None:
        found.disconnect(connected)
