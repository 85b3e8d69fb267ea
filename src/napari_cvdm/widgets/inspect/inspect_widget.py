"""The Inspect dock: the schedule of a result, its samples, and how far both may be believed."""

from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QLabel, QTabWidget, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_cvdm.widgets.common.choices import ChoiceBox, ChoiceItem
from napari_cvdm.widgets.common.lifetime import listen, when_gone
from napari_cvdm.widgets.common.plots import ThemeColors
from napari_cvdm.widgets.common.run_panel import ERROR, INFORMATION, MessageLine
from napari_cvdm.widgets.inspect.agreement_tab import AgreementTab
from napari_cvdm.widgets.inspect.pixel_tab import PixelTab
from napari_cvdm.widgets.layers.result_layers import groups_of

if TYPE_CHECKING:
    from napari.viewer import Viewer


class InspectWidget(QWidget):
    """Plugins > CVDM reconstruction > Inspect.

    Parameters
    ----------
    napari_viewer : Viewer
    """

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._gone = gone = Event()
        when_gone(self, gone.set)
        self.group = ChoiceBox(napari_viewer, self._entries)
        self.pixel = PixelTab(napari_viewer)
        self.agreement = AgreementTab(napari_viewer)
        self.tabs = QTabWidget()
        self.message = MessageLine()
        self._troubles: dict[QWidget, str] = {}
        self._lay_out()
        self.group.changed.connect(self.refresh)
        for tab in (self.pixel, self.agreement):
            tab.trouble.connect(partial(self._on_trouble, tab))
        self.agreement.calibrated.connect(self._on_calibrated)
        listen(self, napari_viewer.dims.events.current_step, self._on_slider)
        listen(self, napari_viewer.events.theme, self._on_theme)
        self.show_group()

    def _lay_out(self) -> None:
        label = QLabel("&Result")
        label.setBuddy(self.group)
        self.group.setToolTip("The result to inspect: the layers of one reconstruction.")
        choice = QHBoxLayout()
        choice.addWidget(label)
        choice.addWidget(self.group, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(choice)
        self.tabs.addTab(self.pixel, "&Schedule and pixel")
        self.tabs.addTab(self.agreement, "Spread and &error")
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.message)

    def _entries(self) -> list[ChoiceItem]:
        groups = groups_of(self._viewer.layers)
        newest = groups[-1].name if groups else ""
        return [
            ChoiceItem(text=group.name, key=group.name, value=group, preferred=group.name == newest)
            for group in groups
        ]

    @qdebounced(timeout=50)
    def refresh(self) -> None:
        """Show the chosen result as its layers are now; layers come and go many at a time."""
        self.show_group()

    def show_group(self) -> None:
        """Show the chosen result in every tab, and say what is missing."""
        group = self.group.value()
        self._troubles.clear()
        self.message.clear()
        if group is None:
            self.message.say(INFORMATION, "No result among the layers. Reconstruct an image first.")
        elif group.classical:
            self.message.say(
                INFORMATION,
                f"{group.name}: a classical method gives a single answer; there is no spread and "
                "no schedule to inspect.",
            )
        elif group.missing():
            self.message.say(
                INFORMATION,
                f"{group.name}: {' and '.join(group.missing())} not among the layers; undo the "
                "removal or reconstruct again.",
            )
        for tab in (self.pixel, self.agreement):
            tab.set_group(group)

    def _on_trouble(self, tab: QWidget, message: str) -> None:
        self._troubles[tab] = message
        told = next((trouble for trouble in self._troubles.values() if trouble), "")
        if told:
            self.message.say(ERROR, told)
        elif self.pixel.isEnabled():
            self.message.clear()

    def _on_calibrated(self) -> None:
        """The interval at the chosen pixel is another one now."""
        self.pixel.set_group(self.group.value())

    def _on_slider(self) -> None:
        if not self._gone.is_set():
            self._show_frame()

    @qdebounced(timeout=50)
    def _show_frame(self) -> None:
        for tab in (self.pixel, self.agreement):
            tab.on_slider()

    def _on_theme(self) -> None:
        if not self._gone.is_set():
            for tab in (self.pixel, self.agreement):
                tab.set_theme_colors(ThemeColors.of(self._viewer))
