"""The list of a queue of files: what waits, what runs, what is done, what went wrong."""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QSizePolicy,
    QStyle,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_cvdm.io import SUFFIXES
from napari_cvdm.io.pairing import PLANES_RULE, ImageEntry, Sorted, UnmatchedFile
from napari_cvdm.widgets.common.fields import fill_layout, in_words, make_button, wrapped_label

ROWS_SHOWN = 5  # the others are scrolled to
ROW_SPACING_PX = 6
NAME, STATE = range(2)


class State(StrEnum):
    """How far a file has come."""

    WAITING = "waiting"
    READING = "reading"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


AT_WORK = (State.READING, State.RUNNING)
TO_DO = (State.WAITING, State.FAILED, State.CANCELLED)
ICONS = {
    State.READING: QStyle.StandardPixmap.SP_BrowserReload,
    State.RUNNING: QStyle.StandardPixmap.SP_BrowserReload,
    State.DONE: QStyle.StandardPixmap.SP_DialogApplyButton,
    State.FAILED: QStyle.StandardPixmap.SP_MessageBoxCritical,
    State.CANCELLED: QStyle.StandardPixmap.SP_DialogCancelButton,
    State.SKIPPED: QStyle.StandardPixmap.SP_MessageBoxWarning,
}


class Row(QTreeWidgetItem):
    """One line of the list."""

    def __init__(self, what: ImageEntry | UnmatchedFile) -> None:
        super().__init__([what.name, ""])
        if isinstance(what, ImageEntry):
            self.entry: ImageEntry | None = what
            self.setToolTip(NAME, "\n".join(map(str, what.files)))
            self.set_state(State.WAITING)
        else:
            self.entry = None
            self.setToolTip(NAME, what.name)
            self.set_state(State.SKIPPED, what.reason)

    def set_state(self, state: State, detail: str = "") -> None:
        """Show a state, and the reason for it or what else there is to say."""
        self.state = state
        # The row names its file already.
        self.detail = in_words(detail.removeprefix(f"{self.text(NAME)}: "))
        self.setText(STATE, f"{state}: {self.detail}" if detail else str(state))
        self.setToolTip(STATE, self.detail or str(state))

    def set_percent(self, percent: int) -> None:
        """Show how far its run has come."""
        self.setText(STATE, f"{self.state} {percent} %")


class FileList(QTreeWidget):
    """Rows of files; Delete is for the selected ones."""

    delete_pressed = Signal()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Tell of Delete; every other key moves in the list."""
        if event is not None and event.key() == Qt.Key.Key_Delete:
            self.delete_pressed.emit()
        else:
            super().keyPressEvent(event)


class QueuePanel(QWidget):
    """Add files, and look at the list; without files there is no list."""

    added = Signal(list)

    def __init__(self, *, start: Callable[[], None], cancel: Callable[[], None]) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.add = make_button(
            "Add f&iles…",
            "Open an image with its pixel size and choose it above. Several images wait in a list: "
            "Start reconstructs\n"
            "them one after another with the settings above. "
            "Files or a folder can also be dropped anywhere on this dock.\n"
            f"For models that take several planes: {PLANES_RULE}",
            self._ask_files,
        )
        self.start = make_button(
            "&Start",
            "Reconstruct what waits, has failed or was cancelled, all with the settings as they "
            "are now.",
            start,
        )
        self.cancel = make_button(
            "Ca&ncel all",
            "Stop the file at work before its next step, and leave the others alone.",
            cancel,
        )
        self.clear = make_button(
            "Clear lis&t",
            "Empty the list, but for the file at work. Layers stay.",
            lambda: self._remove_idle(self.rows),
        )
        self.list = FileList()
        self.list.setToolTip(
            "Files to reconstruct, in this order. Delete takes the selected ones off the list.\n"
            "Stop and keep ends the one at work with the samples that it has, and the next one "
            "begins."
        )
        self.list.setAccessibleName("Queue of files")
        self.list.delete_pressed.connect(lambda: self._remove_idle(self.list.selectedItems()))
        self.list.currentItemChanged.connect(lambda *_: self._show_detail())
        self.detail = wrapped_label()
        self._lay_out()
        self.refresh()

    def _lay_out(self) -> None:
        self.list.setHeaderLabels(["file", "state"])
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setTabKeyNavigation(False)  # Tab leads out of the list, to the buttons
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)
        header = self.list.header()
        for column in (NAME, STATE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        policy = self.detail.sizePolicy()
        # A long reason wraps instead of widening the dock.
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
        self.detail.setSizePolicy(policy)
        buttons = fill_layout(QHBoxLayout(), self.add, self.start, self.cancel, self.clear)
        fill_layout(QVBoxLayout(self), buttons, self.list, self.detail, margins=(4, 0, 4, 0))

    def add_sorted(self, found: Sorted) -> None:
        """Append images, which wait, and strays, which are skipped."""
        self._append([*found.entries, *found.strays], len(self.rows))

    def replace(self, rows: Sequence[Row], entries: Iterable[ImageEntry]) -> None:
        """Put entries in the place of rows, where the first of them is."""
        index = self.rows.index(rows[0])
        self._remove(rows)
        self._append(entries, index)

    def _append(self, found: Iterable[ImageEntry | UnmatchedFile], index: int) -> None:
        rows = [Row(what) for what in found]
        height = QSize(0, self.list.fontMetrics().height() + ROW_SPACING_PX)
        for row in rows:
            row.setSizeHint(NAME, height)  # with and without an icon
        self.rows[index:index] = rows
        self.list.insertTopLevelItems(index, list[QTreeWidgetItem](rows))
        # Again, now that a row can be chosen and scrolled to.
        for row in rows:
            self.show_state(row, row.state, row.detail)

    def _remove(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.list.takeTopLevelItem(self.rows.index(row))
            self.rows.remove(row)
        self.refresh()

    def show_state(self, row: Row, state: State, detail: str = "") -> None:
        """Show the state of a row; the first failure is explained below the list."""
        row.set_state(state, detail)
        icon = self.style().standardIcon(ICONS[state]) if state in ICONS else QIcon()
        row.setIcon(STATE, icon)  # none for a row that waits again after a failure
        if state is State.FAILED and self.list.currentItem() is None:
            self.list.setCurrentItem(row)
        if state in AT_WORK:
            self.list.scrollToItem(row)
        self.refresh()

    def waiting(self) -> list[Row]:
        """The rows that wait."""
        return [row for row in self.rows if row.state is State.WAITING]

    def next(self) -> Row | None:
        """The first row that waits."""
        return next(iter(self.waiting()), None)

    def change(self, before: Sequence[State], after: State) -> None:
        """Change the state of all rows that are in one of the states."""
        for row in self.rows:
            if row.state in before:
                self.show_state(row, after)

    def summary(self) -> str:
        """How many rows are in which state, in words."""
        counts = {state: sum(row.state is state for row in self.rows) for state in State}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count)

    def refresh(self) -> None:
        """Show the list if there is something in it, and what can be done with it."""
        states = {row.state for row in self.rows}
        for widget in (self.list, self.start, self.cancel, self.clear):
            widget.setVisible(bool(self.rows))
        # An empty list is hidden, so that the button alone can say that files may be dropped.
        self.add.setText("Add f&iles…" if self.rows else "Add f&iles…, or drop them on this dock")
        shown = min(len(self.rows), ROWS_SHOWN) * self.list.sizeHintForRow(0) if self.rows else 0
        self.list.setFixedHeight(
            shown + self.list.header().sizeHint().height() + 2 * self.list.frameWidth()
        )
        self.start.setEnabled(not states.isdisjoint(TO_DO) and states.isdisjoint(AT_WORK))
        self.cancel.setEnabled(not states.isdisjoint((*AT_WORK, State.WAITING)))
        self.clear.setEnabled(bool(states - set(AT_WORK)))
        self._show_detail()

    def _show_detail(self) -> None:
        row = self.list.currentItem()
        said = f"{row.text(NAME)}: {row.detail}" if isinstance(row, Row) and row.detail else ""
        self.detail.setText(said)
        self.detail.setVisible(bool(said))

    def _remove_idle(self, rows: Iterable[Row]) -> None:
        self._remove([row for row in rows if row.state not in AT_WORK])

    def _ask_files(self) -> None:
        kinds = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        paths, _ = QFileDialog.getOpenFileNames(
            self,
            "Open one image, or several to be reconstructed one after another",
            "",
            f"Images ({kinds});;All files (*)",
        )
        if paths:
            self.added.emit(paths)
