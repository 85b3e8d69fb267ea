"""Tiles cover the canvas once, and a local function does not notice them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cvdm.core.noise import noise_field
from napari_cvdm.core.result import finished
from napari_cvdm.core.tiling import plan_tiles
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.tiled import map_tiles, pad_to_canvas

SIZES = st.integers(1, 300)


@settings(max_examples=80)
@given(
    height=SIZES,
    width=SIZES,
    tile=st.integers(1, 200),
    halo=st.integers(0, 6),
    alignment=st.sampled_from([1, 2, 4, 8]),
)
def test_tiles_write_every_pixel_once_and_read_their_halo(height, width, tile, halo, alignment):
    plan = plan_tiles((height, width), tile=tile, halo=halo * alignment, alignment=alignment)
    written = np.zeros(plan.canvas, int)
    for rows, columns in plan.tiles:
        written[rows.write(), columns.write()] += 1
        for span, extent in zip((rows, columns), plan.canvas, strict=True):
            assert span.read_start == max(0, span.start - halo * alignment)
            assert span.read_stop == min(extent, span.stop + halo * alignment)
            assert span.read_start % alignment == 0
            assert span.read_stop % alignment == 0
    assert (written == 1).all()
    assert plan.canvas[0] >= height
    assert plan.canvas[0] - height < alignment


@settings(max_examples=30)
@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.integers(1, 50))
def test_mapping_the_identity_gives_the_image_back(height, width, tile):
    plan = plan_tiles((height, width), tile=tile, halo=4, alignment=2)
    image = pad_to_canvas(torch.rand(1, 2, height, width), plan)
    assert torch.equal(finished(map_tiles(lambda part: part, [image], plan, factor_out=1)), image)


def test_a_convolution_does_not_notice_tiles_and_grids_of_other_factors():
    plan = plan_tiles((50, 67), tile=16, halo=4, alignment=2)
    image = torch.rand(1, 1, *plan.canvas, dtype=torch.float64)
    finer = torch.rand(1, 1, 2 * plan.canvas[0], 2 * plan.canvas[1], dtype=torch.float64)
    kernel = torch.rand(1, 1, 5, 5, dtype=torch.float64)

    def work(coarse, fine):
        grown = (
            torch.nn.functional.conv2d(coarse, kernel, padding=2)
            .repeat_interleave(2, -1)
            .repeat_interleave(2, -2)
        )
        return grown + torch.nn.functional.conv2d(fine, kernel, padding=2)

    torch.testing.assert_close(
        finished(map_tiles(work, [image, finer], plan, factor_out=2)),
        work(image, finer),
        rtol=0,
        atol=1e-12,
    )


def test_a_halo_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="multiple of the alignment"):
        plan_tiles((64, 64), tile=32, halo=3, alignment=2)


@settings(max_examples=40)
@given(
    top=st.integers(0, 300),
    left=st.integers(0, 300),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 2**63 - 1),
)
def test_noise_belongs_to_absolute_pixels(top, left, height, width, seed):
    whole = noise_field((400, 400), seed=seed, sample=3, step=2)
    part = noise_field((height, width), seed=seed, sample=3, step=2, origin=(top, left))
    assert np.array_equal(part, whole[top : top + height, left : left + width])


def test_samples_come_in_pairs_of_opposite_noise_that_belongs_to_absolute_pixels():
    network = CVDM(CVDMConfig(condition_channels=1, noise_scale=1.3))
    whole = network.noise((300, 300), [4, 5, 6], 2, 7)
    torch.testing.assert_close(
        network.noise((90, 110), [5], 2, 7, (70, 130))[0], whole[1, :, 70:160, 130:240]
    )
    assert torch.equal(whole[0], -whole[1])
    assert abs(float((whole[0] * whole[2]).mean())) < 0.03
    assert float(whole[0].std()) == pytest.approx(1.3, abs=0.02)
    assert float(network.noise((300, 300), [4], 0, 7).std()) == pytest.approx(1, abs=0.02)


def test_noise_differs_between_seeds_samples_and_steps_and_is_normal():
    fields = [
        noise_field((256, 256), seed=a, sample=b, step=c).ravel()
        for a, b, c in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    correlation = np.corrcoef(fields)
    assert np.abs(correlation - np.eye(4)).max() < 0.02
    assert abs(np.mean(fields[0])) < 0.02
    assert abs(np.std(fields[0]) - 1) < 0.02
    assert abs(np.mean(fields[0] ** 4) - 3) < 0.15
