"""Panels of the gallery show the same field, whatever their grid."""

import numpy as np
import pytest
from paper.gallery import Exhibit, crop_middle, draw_exhibit
from paper.measure import finish, tiny_model

from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.reconstruction.methods import load_method


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (21, 8)])
def test_the_middle_is_no_larger_than_asked_and_in_the_middle(size):
    image = np.arange(np.prod(size)).reshape(size)
    part = crop_middle(image, 6)
    assert part.shape == tuple(min(side, 6) for side in size)
    assert image[size[0] // 2, size[1] // 2] in part


def test_input_result_and_truth_show_the_same_field(monkeypatch):
    monkeypatch.setattr("paper.gallery.LARGEST_PX", 24)
    counts = np.random.default_rng(0).poisson(50, (32, 32)).astype(np.float32)
    image = ImageStack(array=counts, axes="YX", pixel_um=0.0626)
    optics = {"na": 1.4, "wavelength_um": 0.525, "medium_index": 1.5}
    found, classical = (
        finish(ReconstructionRequest(image=image, model=name, samples=2, steps=2, **optics), how)
        for name, how in (
            ("widefield-x2", tiny_model()),
            ("richardson-lucy", load_method("richardson-lucy")),
        )
    )
    figure = draw_exhibit(
        Exhibit(name="n", image=counts, classical=classical, found=found, truth=found.mean)
    )
    sizes = [axes.images[0].get_array().shape for axes in figure.axes if axes.images]
    assert sizes == [(12, 12), *[(24, 24)] * 4]
