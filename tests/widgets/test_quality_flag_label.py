"""The dock shows how far a result can be trusted.

It also shows where the result leaves data unexplained.
"""

import numpy as np
import pytest
from qtpy.QtWidgets import QLabel

from napari_cvdm.checks.plane_warnings import FLIPPED, SWAPPED
from napari_cvdm.checks.run_checks import BEATEN
from napari_cvdm.core.result import finished as drained
from napari_cvdm.widgets.common.fields import as_sentences, in_words
from napari_cvdm.widgets.layers.layer_data import plugin_metadata
from napari_cvdm.widgets.layers.result_layers import CHI2_LIMITS, RESIDUAL_LIMITS
from napari_cvdm.widgets.layers.shown_layers import show_stored
from napari_cvdm.widgets.reconstruct.results_panel import COLOURS, WORDS, QualityFlagSign


def test_the_light_names_its_reason_and_a_result_without_one_shows_none(qtbot):
    light = QualityFlagSign(correct=print, compare=print)
    qtbot.addWidget(light)
    for colour in COLOURS:
        light.show_provenance(
            {"quality_flag": colour, "quality_reasons": ["the gravest", "another", "a third"]}
        )
        assert not light.isHidden()
        assert light.text() == f"{WORDS[colour]}: The gravest"
        assert light.toolTip().splitlines() == ["The gravest", "Another", "A third"]
        assert light.swap.isHidden() and light.classical.isHidden()
        assert not light.findChildren(QLabel)[0].pixmap().isNull()
    light.show_provenance({"warnings": ()})
    assert light.isHidden()


@pytest.mark.parametrize(("word", "positions"), [(SWAPPED, (2.0, 0.0)), (FLIPPED, (0.0, -2.0))])
def test_positions_that_a_reason_proposes_are_a_button(qtbot, word, positions):
    taken = []
    light = QualityFlagSign(correct=taken.append, compare=print)
    qtbot.addWidget(light)
    reasons = [f"structures come out thin: {word}."]
    settings = {"defocus_um": [0.0, 2.0]}
    light.show_provenance(
        {"quality_flag": "amber", "quality_reasons": reasons, "settings": settings}
    )
    assert not light.swap.isHidden() and light.classical.isHidden()
    light.swap.click()
    assert taken == [positions]


def test_a_classical_answer_that_explains_it_better_is_a_button(qtbot):
    taken = []
    light = QualityFlagSign(correct=print, compare=lambda: taken.append(1))
    qtbot.addWidget(light)
    reasons = [BEATEN.format(1.4, 1.05)]
    light.show_provenance({"quality_flag": "amber", "quality_reasons": reasons})
    light.classical.click()
    assert taken and light.swap.isHidden()


def test_a_run_with_optics_shows_the_light_and_the_residual_where_the_image_lies(
    viewer, measured, open_dock, finished, tiny_widefield_model
):
    source = viewer.add_image(**measured)
    dock = open_dock(tiny_widefield_model)
    for name, value in {"na": "1.4", "wavelength_um": "0.52", "medium_index": "1.515"}.items():
        dock.form.optics[name].setText(value)
    dock.start()
    finished(dock)
    provenance = plugin_metadata(viewer.layers["reconstruction of cell [counts]"])["provenance"]
    assert dock.results.light.colour == provenance["quality_flag"] != ""
    said = [as_sentences(in_words(reason)) for reason in provenance["quality_reasons"]]
    assert dock.results.light.toolTip().splitlines() == said
    assert any("measured image" in reason for reason in provenance["quality_reasons"])
    for role in ("residual", "local chi-squared"):
        show_stored(viewer, dock.results.value(), role)
    residual = viewer.layers["residual of cell [sigma]"]
    assert residual.data.shape == source.data.shape
    np.testing.assert_allclose(residual.data_to_world((3, 4)), source.data_to_world((3, 4)))
    assert residual.units == source.units
    local = viewer.layers["local chi-squared of cell"]
    np.testing.assert_allclose(local.data_to_world((3, 4)), source.data_to_world((3, 4)))
    assert tuple(local.contrast_limits) == CHI2_LIMITS
    noise_alone = (1 - CHI2_LIMITS[0]) / (CHI2_LIMITS[1] - CHI2_LIMITS[0])
    assert local.colormap.map(np.array([noise_alone])).sum() < min(
        local.colormap.map(np.array([value])).sum() for value in (0.0, 0.5, 1.0)
    )


def test_residual_layers_lie_on_the_grid_of_the_camera(
    viewer, tiny_phase_model, tiny_widefield_model
):
    from made_results import every_layer
    from napari.layers import Image, Layer
    from small_images import phase_request, planes, spots, widefield_request

    from napari_cvdm.models.registry import load_model
    from napari_cvdm.reconstruction.reconstruct import reconstruct
    from napari_cvdm.widgets.layers.placement import Placement

    def layers(request, model, image):
        made = (
            Layer.create(*one)
            for one in every_layer(
                drained(reconstruct(request, load_model(str(model)))), Placement.of(image)
            )
        )
        return {plugin_metadata(layer)["role"]: layer for layer in made}

    movie = Image(
        spots((2, 40, 36), axes="TYX").array,
        name="cell",
        scale=(1.0, 0.065, 0.065),
        units=("s", "um", "um"),
        axis_labels=("t", "y", "x"),
    )
    found = layers(
        widefield_request(
            spots((2, 40, 36), axes="TYX"), na=1.4, wavelength_um=0.52, medium_index=1.515
        ),
        tiny_widefield_model,
        movie,
    )
    residual = found["residual"]
    assert residual.data.shape == (2, 40, 36)
    np.testing.assert_allclose(residual.data_to_world((1, 3, 4)), movie.data_to_world((1, 3, 4)))
    assert not residual.visible
    assert tuple(residual.contrast_limits) == RESIDUAL_LIMITS
    assert plugin_metadata(residual)["unit"] == "sigma"
    pair = planes((48, 40))
    stack = Image(
        pair.array,
        name="pair",
        scale=(1.0, 0.2, 0.2),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    both = layers(phase_request(pair), tiny_phase_model, stack)
    assert (
        both["residual"].data.shape[-2:] == both["residual of plane 2"].data.shape[-2:] == (48, 40)
    )
    assert not np.array_equal(both["residual"].data, both["residual of plane 2"].data)
    assert both["local chi-squared"].data.shape[-2:] == (48, 40)
