"""Fields of forms: numbers that may be left empty, paths, words, and text that wraps."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QKeySequence, QPainter, QPixmap, QShowEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QDockWidget,
    QFileDialog,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMainWindow,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QStyle,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLargeIntSpinBox

from napari_cvdm.core.request import MeasuredPsf, RequestError
from napari_cvdm.io import ImageFileError, sha256_of
from napari_cvdm.io.read import read_psf

NUMBERS_A_ROW = 4
NARROWEST_PX = 60
USUAL_LETTERS = 16
ICON_PX, FOLD_GREY = 16, "#8f969e"
FOLD_STYLE = (
    "QPushButton { text-align: left; font-weight: bold; padding: 4px; border-radius: 2px; "
    "border: 1px solid palette(mid); } "
    "QPushButton:focus, QPushButton:hover { border-color: palette(text); }"
)


class Dock(QWidget):
    """A dock of this plugin: a second one becomes a tab of the first, which keeps its height."""

    _joined = False

    def showEvent(self, event: QShowEvent | None) -> None:
        """Join the other docks of this plugin, once the window holds this one."""
        super().showEvent(event)
        if not self._joined:
            self._joined = True
            # While napari adds a dock, the window does not hold it yet.
            QTimer.singleShot(0, self._join_others)

    def _join_others(self) -> None:
        own = _dock_around(self)
        window = None if own is None else own.parent()
        if own is None or not isinstance(window, QMainWindow) or own.isFloating():
            return
        area = window.dockWidgetArea(own)
        others = [
            other
            for dock in window.findChildren(Dock)
            if (other := _dock_around(dock)) is not None
            and other is not own
            and not (other.isFloating() or other.isHidden())
            and window.dockWidgetArea(other) == area
        ]
        if others and not window.tabifiedDockWidgets(own):
            window.tabifyDockWidget(others[-1], own)
            own.raise_()


def _dock_around(widget: QWidget) -> QDockWidget | None:
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


def wrapped_label(text: str = "") -> QLabel:
    """Plain text over as many lines as it needs."""
    label = QLabel(text)
    label.setWordWrap(True)
    # By default Qt takes a message with tags in it for HTML.
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label


def explain_control(control: QWidget, purpose: str) -> None:
    """Give a control a tooltip: what it is for, and the key that a button's text underlines."""
    text = control.text() if isinstance(control, QAbstractButton) else ""
    key = QKeySequence.mnemonic(text).toString(QKeySequence.SequenceFormat.NativeText)
    control.setToolTip(f"{purpose} ({key})" if key else purpose)


def limit_width(box: QComboBox) -> QComboBox:
    """The box, made to shrink with the dock instead of growing with its longest entry."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(USUAL_LETTERS)
    box.setMinimumWidth(NARROWEST_PX)
    return box


def word_choice(words: Iterable[str]) -> QComboBox:
    """One of several words."""
    box = limit_width(QComboBox())
    box.addItems(words)
    return box


def whole_number(low: int, high: int) -> Any:
    """A whole number from `low` to `high`, which may be a seed: QSpinBox ends at 2**31."""
    box: Any = QLargeIntSpinBox()  # superqt gives it no types
    box.setRange(low, high)
    box.setMinimumWidth(NARROWEST_PX)
    return box


def browse_button(owner: QWidget, purpose: str) -> QToolButton:
    """A button that looks for a file or a folder."""
    button = QToolButton()
    button.setIcon(owner.style().standardIcon(QStyle.StandardPixmap.SP_DirOpenIcon))
    button.setToolTip(purpose)
    return button


def make_button(text: str, purpose: str, act: Callable[..., object]) -> QPushButton:
    """A button with its tooltip, which calls `act` when it is clicked."""
    button = QPushButton(text)
    explain_control(button, purpose)
    button.clicked.connect(act)
    return button


def label_field(text: str, field: QWidget) -> QLabel:
    """The name of a field; its access key leads to the field."""
    label = QLabel(text)
    label.setBuddy(field)
    return label


def fill_layout(layout: Any, *parts: Any, margins: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Any:
    """Put widgets and layouts into a box layout; one that stretches comes as (part, stretch)."""
    layout.setContentsMargins(*margins)
    for part in parts:
        what, stretch = part if isinstance(part, tuple) else (part, 0)
        (layout.addWidget if isinstance(what, QWidget) else layout.addLayout)(what, stretch)
    return layout


def fold_icon(letter: str) -> QIcon:
    """A letter in a grey that is seen on dark and on light themes; Qt would draw it in black."""
    pixmap = QPixmap(ICON_PX, ICON_PX)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setPen(QColor(FOLD_GREY))
    painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, letter)
    painter.end()
    return QIcon(pixmap)


def collapsible(title: str, content: QWidget, purpose: str) -> QCollapsible:
    """Content under a title that unfolds it, folded at first; a tooltip states its purpose."""
    inside = QWidget()  # may be squeezed to nothing, whatever height the content insists on
    fill_layout(QVBoxLayout(inside), content)
    box = QCollapsible(title, collapsedIcon=fold_icon("▶"), expandedIcon=fold_icon("▼"))
    inner = box.layout()
    if inner is not None:
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(0)
    box.toggleButton().setToolTip(purpose)
    # napari's themes give such a button neither frame nor ground: it would not look like one.
    box.toggleButton().setStyleSheet(FOLD_STYLE)
    box.setDuration(0)
    box.setContent(inside)
    box.collapse(animate=False)
    return box


# What a setting is called in a window: words of the field, with their unit.
WORDS = {
    "image": "Image",
    "image2": "Second plane",
    "pixel_um": "Pixel size [µm]",
    "clean pixel_um": "Clean pixel size [µm]",
    "wavelength_um": "Wavelength [µm]",
    "defocus_um": "Plane positions [µm]",
    "medium_index": "Medium index",
    "na": "NA",
    "condenser_na": "Condenser NA",
    "strength_rad": "Strength [rad]",
    "patch_px": "Patch [px]",
    "psf": "Measured PSF",
    "align": "Look for a shift",
    "tile": "Tile [px]",
    "block": "Block [px]",
    "out": "Result folder",
}
_SENTENCE_END = re.compile(r"(?<=[a-z0-9%)][.!?]) (?=\S)")
# The 1 must not be the end of 21, 0.1, 2/1 or -1.
_ONE_OF_MANY = re.compile(
    r"(?<![\d.,/-])1 "
    r"(sample|frame|tile|step|plane|file|image|field|draw|pair|time point|channel)s\b"
)
# An option that is advised, with an example that may hold a decimal point.
_ADVICE = re.compile(
    r"Give (?:it|them|one) with --[a-z0-9-]+(?:, for example[^.]*(?:\.\d[^.]*)*)?\."
)
_MICROMETRES = re.compile(r"(?<=\d )um\b")
_OPTION = re.compile(r"--([a-z][a-z0-9-]*)")
# Names without an underscore are left out: they are also words of sentences.
_NAME = re.compile(
    rf"\b(?:{'|'.join(name for name in WORDS if '_' in name and ' ' not in name)})\b"
)


_FIRST_WORDS = frozenset(
    "a all an any at choose each every few fewer for give half imaged in it its less more no none "
    "not nothing of on one only outside reconstructed some stopped that the there these this those "
    "what where with without".split()
)


def label_of(name: str) -> str:
    """The label of a setting."""
    return WORDS.get(name) or name[:1].upper() + name[1:].replace("_", " ")


def in_words(message: str) -> str:
    """A message as a window says it: no name of a variable, and no option of the command line."""

    def word(name: str) -> str:
        label = label_of(name).split(" [")[0]
        return label if label[:2].isupper() else label[:1].lower() + label[1:]

    text = _ADVICE.sub("Fill it in.", message)
    text = _OPTION.sub(lambda found: word(found[1].replace("-", "_")), text)
    text = _MICROMETRES.sub("µm", _NAME.sub(lambda found: word(found[0]), text))
    text = _ONE_OF_MANY.sub(r"1 \1", text)
    # What else a message begins with may be the name of a layer, which stays as it is.
    begins = _NAME.match(message) or _OPTION.match(message)
    return text[:1].upper() + text[1:] if begins else as_sentences(text)


def as_sentences(text: str) -> str:
    """The same with a capital at the beginning of each sentence.

    Another word may be the name of a layer or a file, which stays as it is.
    """
    return " ".join(
        one[:1].upper() + one[1:] if one.split(" ")[0] in _FIRST_WORDS else one
        for one in _SENTENCE_END.split(text)
    )


class LabelledRows(QFormLayout):
    """Fields by name, below each other. A field and its name have the same help: its purpose."""

    def __init__(self, rows: Mapping[str, QWidget], purposes: Mapping[str, str]) -> None:
        super().__init__()
        self.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.setContentsMargins(4, 4, 4, 4)
        self.setVerticalSpacing(4)
        self._fields = dict(rows)
        for name, field in rows.items():
            label = label_field(label_of(name), field)
            label.setToolTip(purposes[name])
            field.setToolTip(purposes[name])
            self.addRow(label, field)

    def set_label(self, name: str, text: str) -> None:
        """Give a field another label."""
        label = self.labelForField(self._fields[name])
        if isinstance(label, QLabel):
            label.setText(text)

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
    # Nothing scrolls sideways, so the content must fit beside the vertical bar.
    bar = area.verticalScrollBar()
    area.setMinimumWidth(widget.minimumSizeHint().width() + bar.sizeHint().width())
    return area


def parse_number(name: str, text: str) -> float | None:
    """The number that a text says, with a point or a comma; None if there is no text.

    Raises
    ------
    RequestError
        Text that is not a number; the message says the `name` of the setting.
    """
    try:
        # float() refuses the decimal comma of many countries.
        return float(text.replace(",", ".")) if text.strip() else None
    except ValueError:
        raise RequestError(f"{name} is {text!r}; a number is needed, for example 0.5.") from None


class OptionalNumber(QLineEdit):
    """A number, or nothing; `name` is the request's name, for messages."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setMinimumWidth(40)

    def value(self) -> float | None:
        """The number; None when the field is empty. RequestError for text that is no number."""
        return parse_number(self.objectName(), self.text())

    @property
    def typed(self) -> str:
        """What stands in the field."""
        return self.text()

    def set_value(self, value: float | None) -> None:
        """Show the shortest usual text that `value` reads back exactly; None empties the field."""
        # 1 and not 1.0; repr() only where six digits would lose some.
        text = "" if value is None else f"{value:.6g}"
        if value is not None and float(text) != value:
            text = repr(float(value))
        self.setText(text)
        self.setCursorPosition(0)  # of a long number Qt would show the end

    def set_needed(self, needed: bool) -> None:
        """Say in the empty field whether it must be filled."""
        self.setPlaceholderText("needed" if needed else "optional")


class OptionalNumbers(QWidget):
    """Several numbers side by side, or nothing.

    Several numbers typed into one field, with spaces between them, replace all. `name` is the
    request's name, for messages.
    """

    textChanged = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        # Those beyond the count are hidden and keep their text.
        self._made: list[OptionalNumber] = []
        self._count = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self.set_count(2)  # the usual pair of planes, until an image is chosen
        self.setFocusProxy(self._made[0])

    @property
    def _parts(self) -> list[OptionalNumber]:
        return self._made[: self._count]

    def set_count(self, count: int) -> None:
        """Show so many numbers."""
        while len(self._made) < count:
            part, number = OptionalNumber(self.objectName()), len(self._made)
            part.textChanged.connect(lambda _: self.textChanged.emit())
            # Only when all are typed: the first space would end the typing in this field.
            part.editingFinished.connect(self._spread)
            part.setToolTip(self.toolTip())
            self._grid.addWidget(part, number // NUMBERS_A_ROW, number % NUMBERS_A_ROW)
            if self._made:
                part.setPlaceholderText(self._made[0].placeholderText())
                QWidget.setTabOrder(self._made[-1], part)
            self._made.append(part)
        for number, part in enumerate(self._made):
            part.setVisible(number < count)
        self._count = count

    def value(self) -> tuple[float, ...] | None:
        """All numbers; None when all fields are empty.

        Raises
        ------
        RequestError
            Only some of them, or text that is not a number.
        """
        values = [parse_number(self.objectName(), text) for text in self._listed or self.typed]
        known = tuple(value for value in values if value is not None)
        if known and len(known) < len(values):
            raise RequestError(
                f"{self.objectName()} has {len(known)} of {len(values)} values; one is needed for "
                "each plane, for example -1 and 1 for two."
            )
        return known or None

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


class PathField(QWidget):
    """The path of a folder, or of a file, with a button to look for it.

    The title is that of the dialog. `files` are those to offer, such as "Arrays (*.npy *.npz)"; a
    folder is chosen without. With `new`, a name is asked for that does not exist yet.
    """

    changed = Signal()

    def __init__(self, title: str, files: str = "", *, new: bool = False) -> None:
        super().__init__()
        self._title, self._files, self._new = title, files, new
        self.line = QLineEdit()
        self.line.setMinimumWidth(NARROWEST_PX)
        self.line.setPlaceholderText("needed")
        self._browse = browse_button(self, f"{title}.")
        fill_layout(QHBoxLayout(self), (self.line, 1), self._browse)
        self.setFocusProxy(self.line)
        self.line.textChanged.connect(lambda _: self.changed.emit())
        self._browse.clicked.connect(self._ask)

    def _ask(self) -> None:
        if self._new or self._files:
            ask = QFileDialog.getSaveFileName if self._new else QFileDialog.getOpenFileName
            path, _ = ask(self, self._title, self.line.text(), self._files)
        else:
            path = QFileDialog.getExistingDirectory(self, self._title, self.line.text())
        if path:
            self.line.setText(path)

    def value(self) -> Path | None:
        """The path; None as long as none is named."""
        text = self.line.text().strip()
        # Path.expanduser() raises where there is no such user, as while one types the name.
        return Path(os.path.expanduser(text)) if text else None

    def set_value(self, path: str | Path) -> None:
        """Name a path."""
        self.line.setText(str(path))

    def setToolTip(self, text: str | None) -> None:
        """Show the same help over the line."""
        self.line.setToolTip(text)


class PsfField(PathField):
    """The path of a file with a measured PSF, which is read once, or nothing."""

    def __init__(self) -> None:
        super().__init__("Choose the image of a bead", "Images (*.tif *.tiff *.mrc)")
        self.line.setPlaceholderText("none")
        self._read: tuple[Path, MeasuredPsf] | None = None

    def measured(self) -> MeasuredPsf | None:
        """The PSF of the file; None where none is named. RequestError where it cannot be read."""
        path = self.value()
        if path is None:
            return None
        # The form asks at each change of a setting, so the file is read once.
        if self._read is None or self._read[0] != path:
            try:
                self._read = path, read_psf(path)
            except (ImageFileError, OSError) as error:
                raise RequestError(str(error)) from error
        return self._read[1]

    def show_psf(self, wanted: MeasuredPsf | str | None) -> bool:
        """Show a PSF, or the one with the fingerprint that a result's settings give.

        Returns whether it is there. If not, the line is emptied.
        """
        if isinstance(wanted, MeasuredPsf):
            self.set_value(wanted.source)
            return True
        kept = (
            self._read is not None
            and self._read[0] == self.value()
            and isinstance(wanted, str)
            and sha256_of(self._read[1].array) in wanted
        )
        if not kept:
            self.set_value("")
        return kept or wanted is None
