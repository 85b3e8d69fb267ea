"""A line for the file of a measured PSF, which is read once."""

from pathlib import Path

from napari_cvdm.core.request import MeasuredPsf, RequestError
from napari_cvdm.io import ImageFileError, sha256_of
from napari_cvdm.io.read import read_psf
from napari_cvdm.widgets.common.path_field import PathField


class PsfField(PathField):
    """The path of a PSF file, or nothing."""

    def __init__(self) -> None:
        super().__init__("Choose the image of a bead", "Images (*.tif *.tiff *.mrc)")
        self.line.setPlaceholderText("none")
        self._read: tuple[Path, MeasuredPsf] | None = None

    def measured(self) -> MeasuredPsf | None:
        """The PSF of the file; None where none is named. RequestError where it cannot be read."""
        path = self.value()
        if path is None:
            return None
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
