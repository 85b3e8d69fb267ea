"""Fields for numbers that may be left empty, and text that wraps."""

from collections.abc import Mapping

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QAbstractButton, QFormLayout, QFrame, QHBoxLayout, QLabel, QLineEdit, QPlainTextEdit, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_cvdm.request import RequestError


def wrapped_label(text: str = "") -> QLabel:
    """Plain text over as many lines as it needs."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label


def explain_control(control: QWidget, purpose: str) -> None:
    """Give a control a tooltip: what it is for, and the key that a button's text underlines."""
    text = control.text() if isinstance(control, QAbstractButton) else ""
    key = QKeySequence.mnemonic(text).toString(QKeySequence.SequenceFormat.NativeText)
    control.setToolTip(f"{purpose} ({key})" if key else purpose)


def folded(title: str, content: QWidget, purpose: str) -> QCollapsible:
    """Something under a title that unfolds it, and says in a tooltip what it is for; folded at first."""
    inside = QWidget()  # may be squeezed to nothing, whatever height the content insists on
    layout = QVBoxLayout(inside)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(content)
    box = QCollapsible(title, collapsedIcon="▶")
    box.toggleButton().setToolTip(purpose)
    box.setDuration(0)
    box.setContent(inside)
    box.collapse(animate=False)
    return box


class LabelledRows(QFormLayout):
    """Fields below each other, each with its name, the key that leads to it and the same help over both.

    Parameters
    ----------
    rows : mapping of str to QWidget
        Fields by name.
    purposes : mapping of str to str
        What each is for.
    """

    def __init__(self, rows: Mapping[str, QWidget], purposes: Mapping[str, str]) -> None:
        super().__init__()
        self.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.setContentsMargins(4, 4, 4, 4)
        self.setVerticalSpacing(4)
        self.labels: dict[str, QLabel] = {}
        self._fields = dict(rows)
        for name, field in rows.items():
            self.labels[name] = label = QLabel(name)
            label.setBuddy(field)
            label.setToolTip(purposes[name])
            field.setToolTip(purposes[name])
            self.addRow(label, field)

    def show_row(self, name: str, shown: bool) -> None:
        """Show or hide a field with its name."""
        self.setRowVisible(self._fields[name], shown)


def reading_pane(lines: int) -> QPlainTextEdit:
    """Text to read and to copy, so many lines high, with a scroll bar where it is longer."""
    pane = QPlainTextEdit()
    pane.setReadOnly(True)
    pane.setFixedHeight(lines * pane.fontMetrics().lineSpacing() + 2 * pane.frameWidth())
    pane.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard)
    return pane


def scrolled(widget: QWidget) -> QScrollArea:
    """A widget that scrolls where the window is low, and is as wide as it must be."""
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumWidth(widget.minimumSizeHint().width() + area.verticalScrollBar().sizeHint().width())
    return area


def shortest(value: float) -> str:
    """The shortest usual text that reads back as the same number."""
    text = f"{value:.6g}"
    return text if float(text) == value else repr(float(value))


class OptionalNumber(QLineEdit):
    """A number, or nothing.

    Parameters
    ----------
    name : str
        The request's name, for messages.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setMinimumWidth(40)

    def value(self) -> float | None:
        """The number; None when the field is empty.

        Raises
        ------
        RequestError
            Text that is not a number.
        """
        text = self.text().strip().replace(",", ".")
        if not text:
            return None
        try:
            return float(text)
        except ValueError:
            raise RequestError(f"{self.objectName()} is {self.text()!r}; a number is needed, for example 0.5.") from None

    @property
    def typed(self) -> str:
        """What stands in the field."""
        return self.text()

    def set_value(self, value: float | None) -> None:
        """Show a number so that `value` gives it back exactly; None empties the field."""
        self.setText("" if value is None else shortest(value))
        self.setCursorPosition(0)

    def set_needed(self, needed: bool) -> None:
        """Say in the empty field whether it must be filled."""
        self.setPlaceholderText("needed" if needed else "optional")


class OptionalPair(QWidget):
    """Two numbers side by side, or nothing.

    Parameters
    ----------
    name : str
        The request's name, for messages.
    """

    textChanged = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self._parts = (OptionalNumber(name), OptionalNumber(name))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in self._parts:
            part.textChanged.connect(lambda _: self.textChanged.emit())
            layout.addWidget(part)
        self.setFocusProxy(self._parts[0])

    def value(self) -> tuple[float, float] | None:
        """Both numbers; None when both fields are empty.

        Raises
        ------
        RequestError
            Only one of them, or text that is not a number.
        """
        first, second = (part.value() for part in self._parts)
        if first is None and second is None:
            return None
        if first is None or second is None:
            raise RequestError(f"{self.objectName()} has one value; two are needed, one for each plane, for example -1 and 1.")
        return first, second

    def set_value(self, value: tuple[float, float] | None) -> None:
        """Show two numbers; None empties the fields."""
        for part, number in zip(self._parts, value or (None, None), strict=True):
            part.set_value(number)

    def set_needed(self, needed: bool) -> None:
        """Say in the empty fields whether they must be filled."""
        for part in self._parts:
            part.set_needed(needed)

    @property
    def typed(self) -> tuple[str, ...]:
        """What stands in both fields."""
        return tuple(part.text() for part in self._parts)

    def setToolTip(self, text: str | None) -> None:
        """Show the same help over both fields."""
        for part in self._parts:
            part.setToolTip(text)
