"""A window speaks the words of the field: no variable, and no option of the command line."""

import re

import pytest
from qtpy.QtWidgets import QLabel

from napari_cvdm.widgets.common.fields import WORDS, in_words, label_of

MESSAGES = {
    "pixel_um is not known: cell.tif does not say it. Give it with --pixel-um.": (
        "Pixel size is not known: cell.tif does not say it. Fill it in."
    ),
    "condenser_na is not known; a widefield PSF needs it. Give it with --na, for example 1.4.": (
        "Condenser NA is not known; a widefield PSF needs it. Fill it in."
    ),
    "give fewer axes, or leave --keep-samples out.": "Give fewer axes, or leave keep samples out.",
    "stopped with 1 of 8 samples. the planes fit.": "Stopped with 1 of 8 samples. The planes fit.",
    "cell.tif: is cut short. give 1 samples.": "cell.tif: is cut short. Give 1 sample.",
    "all 11 samples are alike": "All 11 samples are alike",
    "cell.tif: the image is constant.": "cell.tif: the image is constant.",
    "movie: frame 3 was skipped.": "movie: frame 3 was skipped.",
    "defocus_um has 1 of 2 values.": "Plane positions has 1 of 2 values.",
}


@pytest.mark.parametrize(("said", "shown"), MESSAGES.items())
def test_a_message_has_no_variable_and_no_option(said: str, shown: str) -> None:
    assert in_words(said) == shown
    assert in_words(shown) == shown


@pytest.mark.parametrize("name", [*WORDS, "keep_samples", "steps"])
def test_a_label_is_no_variable(name: str) -> None:
    assert "_" not in label_of(name) and label_of(name)[0].isupper()


def test_every_label_of_the_form_is_in_words(viewer, open_dock, tiny_phase_model):
    dock = open_dock(tiny_phase_model)
    labels = [label.text() for label in dock.form.findChildren(QLabel) if label.buddy() is not None]
    assert {"Pixel size [µm]", "NA", "Second plane", "Plane positions [µm]"} <= set(labels)
    assert [text for text in labels if "_" in text] == []
    dock.panel.fail("wavelength_um is 520; allowed is 0.2 to 2. Give it with --wavelength-um.")
    assert not re.search(r"--|_um", dock.panel.message.text())


def test_light_and_glass_have_the_names_of_the_task(
    viewer, open_dock, tiny_phase_model, tiny_widefield_model
):
    dock = open_dock(tiny_widefield_model)

    def labels():
        return {label.text() for label in dock.form.findChildren(QLabel)}

    assert {"Immersion index", "Emission wavelength [µm]"} <= labels()
    dock.form.model.set_value(str(tiny_phase_model))
    assert {"Medium index", "Wavelength [µm]"} <= labels()
