"""Pairs of clean images, of published arrays, and of batches that are made elsewhere."""

import mrcfile
import numpy as np
import pytest
import torch
from small_images import CLEAR

from napari_cvdm.core.request import RequestError
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.simulate.scenes import simulate_phase, simulate_widefield
from napari_cvdm.training.pairs import Arrays, BioSR
from napari_cvdm.training.pool import FieldPool, TrainingField

STRONG = PhaseRanges(
    field_px=(96, 96),
    photons=(1e5, 1e5),
    strength_rad=(1.5, 2.5),
    fresnel=(20, 30),
    pixel_um=(0.2, 0.2),
)


def structured(seed):
    """A simulated pair that has something in it."""
    pair = simulate_widefield(seed, CLEAR)
    assert pair.truth.std() > 0
    return pair


def test_the_official_arrays_are_read_in_their_units(tmp_path):
    pair = simulate_phase(3, STRONG)
    lowest, span = pair.planes.min(), np.ptp(pair.planes)
    x = np.moveaxis(2 * (pair.planes - lowest) / span - 1, 0, -1)[None]
    y = ((pair.phase - pair.phase.min()) / 3.5 * 2 - 1)[None, ..., None]
    np.savez(tmp_path / "pair.npz", x=x, y=y)
    optics = {
        "pixel_um": 0.2,
        "wavelength_um": pair.microscope.wavelength_um,
        "medium_index": pair.microscope.medium_index,
        "defocus_um": pair.defocus_um,
    }
    (entry,) = Arrays(x=str(tmp_path / "pair.npz"), y=str(tmp_path / "pair.npz"), **optics).entries(
        "phase-2shot"
    )
    loaded = entry.load()
    np.testing.assert_allclose(loaded.truth, pair.phase - pair.phase.min(), atol=1e-5)
    assert loaded.measured.shape == pair.planes.shape


def test_biosr_folders_are_read_as_they_are_downloaded(tmp_path):
    """Nine raw frames for each level and one reconstruction for each cell.

    The widefield image is the mean of the frames.
    """
    pair = structured(0)
    for cell in ("Cell_001", "Cell_002"):
        folder = tmp_path / "Microtubules" / cell
        folder.mkdir(parents=True)
        frames = np.stack([pair.counts + offset for offset in range(-4, 5)]).astype(np.float32)
        for name, image in (
            ("RawSIMData_level_01", frames),
            ("RawSIMData_level_02", frames),
            ("SIM_gt", pair.truth),
        ):
            with mrcfile.new(folder / f"{name}.mrc") as file:
                file.set_data(image.astype(np.float32))
                file.voxel_size = 626.0 if "Raw" in name else 313.0
    entries = BioSR(folder=str(tmp_path), levels=(2, 9)).entries("widefield-x2")
    assert len(entries) == 2
    assert len({entry.view for entry in entries}) == 2
    np.testing.assert_allclose(entries[0].load().measured[0], pair.counts, rtol=1e-5)
    with pytest.raises(RequestError, match="give the folder of a structure"):
        BioSR(folder=str(tmp_path), levels=(5, 9)).entries("widefield-x2")


class Numbered:
    """A source whose fields hold their number."""

    def __init__(self, count=None):
        self.count, self.made = count, []

    def field(self, index: int) -> TrainingField:
        self.made.append(index)
        truth = torch.zeros(32, 32)
        truth[:4, :4] = 1 + index
        return TrainingField(
            channels=torch.full((1, 32, 32), float(index)),
            initial_estimate=torch.zeros(32, 32),
            truth=truth,
            weight=1.0 + index,
        )

    def blank(self, index: int) -> TrainingField:
        return TrainingField(
            channels=torch.full((1, 32, 32), -1.0),
            initial_estimate=torch.zeros(32, 32),
            truth=torch.zeros(32, 32),
            weight=0.0,
        )


@pytest.mark.parametrize("part", [slice(0, 3), slice(3, 6), slice(1, 2)])
def test_a_part_of_a_batch_is_that_part_and_makes_only_its_fields(part):
    whole, alone = Numbered(), Numbered()
    batch = FieldPool(whole, 20, 0.5, 7, foreground=0.5, blank=0.2).batch(9, 6, 16)
    cut = FieldPool(alone, 20, 0.5, 7, foreground=0.5, blank=0.2).batch(9, 6, 16, part)
    for name in ("channels", "initial_estimate", "truth", "weight"):
        assert torch.equal(getattr(cut, name), getattr(batch, name)[part]), name
    assert len(alone.made) <= part.stop - part.start


def test_blank_and_foreground_patches_come_as_often_as_was_asked():
    pool = FieldPool(Numbered(4), 10, 0.5, 3, foreground=0.0, blank=0.25)
    batch = pool.batch(0, 2000, 8)
    assert float((batch.channels.amax(dim=(1, 2, 3)) < 0).float().mean()) == pytest.approx(
        0.25, abs=0.03
    )
    rare = FieldPool(Numbered(4), 10, 0.5, 3).batch(0, 1000, 8).truth.abs().sum(dim=(1, 2, 3)) > 0
    often = (
        FieldPool(Numbered(4), 10, 0.5, 3, foreground=1.0)
        .batch(0, 1000, 8)
        .truth.abs()
        .sum(dim=(1, 2, 3))
        > 0
    )
    assert float(often.float().mean()) > 3 * float(rare.float().mean())


def test_a_small_source_is_held_whole():
    source = Numbered(3)
    pool = FieldPool(source, 48, 0.5, 0)
    for step in range(40):
        pool.batch(step, 4, 8)
    assert sorted(source.made) == [0, 1, 2]
