"""Fields for numbers that may be left empty, and text that wraps."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAbstractButton,
    QFormLayout,
    QFrame,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_cvdm.core.request import RequestError

NUMBERS_A_ROW = 4


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


def collapsible(title: str, content: QWidget, purpose: str) -> QCollapsible:
    """Content under a title that unfolds it, folded at first; a tooltip states its purpose."""
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
    """Fields below each other, each with its name and its access key.

    Name and field have the same help.

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
    pane.setTextInteractionFlags(
        Qt.TextInteractionFlag.TextSelectableByMouse
        | Qt.TextInteractionFlag.TextSelectableByKeyboard
    )
    return pane


def scrolled(widget: QWidget) -> QScrollArea:
    """A widget that scrolls where the window is low, and is as wide as it must be."""
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumWidth(
        widget.minimumSizeHint().width() + area.verticalScrollBar().sizeHint().width()
    )
    return area


def format_number(value: float) -> str:
    """The shortest usual text that reads back as the same number."""
    text = f"{value:.6g}"
    return text if float(text) == value else repr(float(value))


def parse_number(name: str, text: str) -> float | None:
    """The number that a text says, with a point or a comma; None if there is no text.

    Parameters
    ----------
    name : str
        The request's name, for messages.
    text : str

    Raises
    ------
    RequestError
        Text that is not a number.
    """
    try:
        return float(text.replace(",", ".")) if text.strip() else None
    except ValueError:
        raise RequestError(f"{name} is {text!r}; a number is needed, for example 0.5.") from None


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
        return parse_number(self.objectName(), self.text())

    @property
    def typed(self) -> str:
        """What stands in the field."""
        return self.text()

    def set_value(self, value: float | None) -> None:
        """Show a number so that `value` gives it back exactly; None empties the field."""
        self.setText("" if value is None else format_number(value))
        self.setCursorPosition(0)

    def set_needed(self, needed: bool) -> None:
        """Say in the empty field whether it must be filled."""
        self.setPlaceholderText("needed" if needed else "optional")


class OptionalNumbers(QWidget):
    """Several numbers side by side, or nothing.

    Several numbers typed into one field, with spaces between them, replace all.

    Parameters
    ----------
    name : str
        The request's name, for messages.
    count : int
        Numbers at first.
    """

    textChanged = Signal()

    def __init__(self, name: str, count: int = 2) -> None:
        super().__init__()
        self.setObjectName(name)
        self._made: list[
            OptionalNumber
        ] = []  # those beyond the count are hidden and keep their text
        self._count = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self.set_count(count)
        self.setFocusProxy(self._made[0])

    @property
    def _parts(self) -> list[OptionalNumber]:
        return self._made[: self._count]

    def set_count(self, count: int) -> None:
        """Show so many numbers."""
        while len(self._made) < count:
            self._add_part()
        for number, part in enumerate(self._made):
            part.setVisible(number < count)
        self._count = count

    def _add_part(self) -> None:
        part, number = OptionalNumber(self.objectName()), len(self._made)
        part.textChanged.connect(lambda _: self.textChanged.emit())
        part.editingFinished.connect(self._spread)
        part.setToolTip(self.toolTip())
        self._grid.addWidget(part, number // NUMBERS_A_ROW, number % NUMBERS_A_ROW)
        if self._made:
            part.setPlaceholderText(self._made[0].placeholderText())
            QWidget.setTabOrder(self._made[-1], part)
        self._made.append(part)

    def value(self) -> tuple[float, ...] | None:
        """All numbers; None when all fields are empty.

        Raises
        ------
        RequestError
            Only some of them, or text that is not a number.
        """
        values = [parse_number(self.objectName(), text) for text in self._listed or self.typed]
        known = tuple(value for value in values if value is not None)
        if not known:
            return None
        if len(known) < len(values):
            raise RequestError(
                f"{self.objectName()} has {len(known)} of {len(values)} values; one is needed for "
                "each plane, for example -1 and 1 for two."
            )
        return known

    @property
    def _listed(self) -> list[str]:
        """The numbers of the field that holds several; empty without one."""
        lists = (text.split() for text in self.typed)
        return next((words for words in lists if len(words) > 1), [])

    def _spread(self) -> None:
        """Give each of several numbers in one field a field of its own."""
        if self._listed:
            with suppress(RequestError):  # said when the value is asked for
                self.set_value(self.value())

    def set_value(self, value: Sequence[float] | None) -> None:
        """Show these numbers; None empties the fields."""
        if value is not None:
            self.set_count(len(value))
        numbers: Sequence[float | None] = [None] * self._count if value is None else value
        for part, number in zip(self._parts, numbers, strict=True):
            part.set_value(number)

    def set_needed(self, needed: bool) -> None:
        """Say in the empty fields whether they must be filled."""
        for part in self._made:
            part.set_needed(needed)

    @property
    def typed(self) -> tuple[str, ...]:
        """What stands in the fields."""
        return tuple(part.text() for part in self._parts)

    def setToolTip(self, text: str | None) -> None:
        """Show the same help over all fields."""
        super().setToolTip(text)
        for part in self._made:
            part.setToolTip(text)
