"""Following a microscope: always the newest frame, reconstructed in few steps; older ones are dropped and counted."""

from napari_cvdm.follow.folder import FolderWatch
from napari_cvdm.follow.live import LiveFrame, SkippedFrame, follow, newest_index
from napari_cvdm.follow.mailbox import FrameSource, Letter, Mailbox

__all__ = ["FolderWatch", "FrameSource", "Letter", "LiveFrame", "Mailbox", "SkippedFrame", "follow", "newest_index"]
