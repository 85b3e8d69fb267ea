"""Where training pairs come from.

A pair is read as it was written. Pairs that do not belong together are refused by name.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import shift
from small_images import CLEAR

from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import RequestError
from napari_cvdm.evaluation.pair_sets import measured_pairs
from napari_cvdm.io import ImageFileError, write_image
from napari_cvdm.models.checkpoint import read_card
from napari_cvdm.simulate.ranges import PhaseRanges
from napari_cvdm.simulate.scenes import (
    MARGIN_PX,
    phase_of_image,
    simulate_phase,
    simulate_widefield,
    structure_of_image,
)
from napari_cvdm.training.measured import MeasuredFields, compare_widefield
from napari_cvdm.training.pairs import Arrays, Folders
from napari_cvdm.training.pool import phase_field
from napari_cvdm.training.sources import (
    CleanImages,
    SimulatedFields,
    held_out_views,
    split_measured,
    split_simulation,
)

SEEDS = (0, 1, 4, 7)
STRONG = PhaseRanges(
    field_px=(96, 96),
    photons=(1e5, 1e5),
    strength_rad=(1.5, 2.5),
    fresnel=(20, 30),
    pixel_um=(0.2, 0.2),
)
OPEN, STACK_SEED = replace(STRONG, condenser_na=(0.3, 0.3), field_px=(64, 64)), 30
FAINT_SHIFT = (0.6, -0.4)
pytestmark = pytest.mark.usefixtures("few_solver_steps", "remembered_inversions")


@cache
def structured(seed):
    """A simulated pair that has something in it."""
    pair = simulate_widefield(seed, CLEAR)
    assert pair.truth.std() > 0
    return pair


def write_folders(
    root: Path, pairs: dict[str, tuple[np.ndarray, np.ndarray]], pixel_um=0.0626, truth_um=None
) -> Folders:
    """Measured images and truths in two folders."""
    for name, (measured, truth) in pairs.items():
        for kind, image, size in (
            ("measured", measured, pixel_um),
            ("truth", truth, truth_um or pixel_um / 2),
        ):
            (root / kind).mkdir(exist_ok=True)
            write_image(
                root / kind / f"{name}.ome.tif",
                image,
                axes="TYX" if image.ndim == 3 else "YX",
                pixel_um=size,
                unit="counts",
                name=name,
            )
    return Folders(measured=str(root / "measured"), truth=str(root / "truth"))


@pytest.fixture
def pairs():
    """Four pairs by name."""
    return {f"field {seed}": (structured(seed).counts, structured(seed).truth) for seed in SEEDS}


def fields_of(folders: Folders | Arrays, task="widefield-x2", seed=0) -> MeasuredFields:
    """All fields of two folders or arrays."""
    return MeasuredFields(folders.entries(task), task, register=folders.register, seed=seed)


def test_what_is_learned_from_is_what_was_written(tmp_path, pairs):
    source = fields_of(write_folders(tmp_path, pairs))
    assert source.count == len(pairs)
    for number, name in enumerate(sorted(pairs)):
        truth = pairs[name][1]
        found = source.exactly(number)
        assert found.channels.shape[-2:] == pairs[name][0].shape
        assert np.corrcoef(found.truth.numpy().ravel(), truth.ravel())[0, 1] > 0.9999


def test_a_truth_of_any_unit_is_scaled_to_the_counts_of_the_image(tmp_path, pairs):
    """A truth a thousand times larger, on a pedestal, gives the same field.

    The shipped models' truth is in counts of a camera pixel.
    """
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    first = fields_of(write_folders(tmp_path / "same", pairs))
    other = fields_of(
        write_folders(
            tmp_path / "other",
            {name: (measured, 1000 * truth + 77) for name, (measured, truth) in pairs.items()},
        )
    )
    for number in range(len(pairs)):
        torch.testing.assert_close(
            first.exactly(number).truth, other.exactly(number).truth, rtol=1e-3, atol=1e-3
        )


def test_each_field_comes_once_in_a_pass(tmp_path, pairs):
    source = fields_of(write_folders(tmp_path, pairs))
    for number in range(2):
        sums = sorted(
            float(source.field(number * source.count + index).truth.sum())
            for index in range(source.count)
        )
        assert sums == sorted(
            float(source.exactly(index).truth.sum()) for index in range(source.count)
        )


@pytest.mark.parametrize("moved", [(0.6, -0.4), (-2.3, 1.0), (0.0, 0.0)])
def test_a_planted_shift_is_found_to_a_tenth_of_a_pixel(moved):
    """The truth is moved by (dy, dx) measured pixels; the shift that brings it back is found."""
    for seed in SEEDS[:2]:
        pair = structured(seed)
        found = compare_widefield(
            pair.counts, shift(pair.truth, [2 * one for one in moved], order=3), 2
        )
        still = compare_widefield(pair.counts, pair.truth, 2)
        np.testing.assert_allclose(
            np.array(found.shift_px) - still.shift_px, -np.array(moved), atol=0.1
        )


def test_a_shifted_truth_is_refused_or_moved(tmp_path, pairs):
    measured, truth = pairs["field 0"]
    folders = write_folders(
        tmp_path, {"moved": (measured, shift(truth, (4.0, 0.0), order=3, mode="nearest"))}
    )
    with pytest.raises(RequestError, match="register = true"):
        fields_of(folders).exactly(0)
    found = fields_of(replace(folders, register=True)).exactly(0)
    margin = (truth.shape[0] - found.truth.shape[0]) // 2
    expected = truth[margin:-margin, margin:-margin]
    assert np.corrcoef(found.truth.numpy().ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("partner", "in one folder only"),
        ("shape", "needs a truth of"),
        ("pixel", "0.0313 um is needed for the truth"),
        ("field", "are they of the same field"),
        ("saturated", "are saturated"),
        ("frames", "each frame needs its truth"),
        ("folder", "there is no such folder"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused_by_name(tmp_path, pairs, spoil, words):
    measured, truth = pairs["field 0"]
    wrong = {
        "shape": (measured, truth[:-2]),
        "field": (measured, pairs["field 4"][1]),
        "frames": (np.stack([measured] * 2), np.stack([truth] * 3)),
    }.get(spoil, (measured, truth))
    folders = write_folders(tmp_path, {"odd": wrong}, truth_um=0.0626 if spoil == "pixel" else None)
    if spoil == "saturated":
        bright = np.clip(measured * (65535 / np.percentile(measured, 90)), 0, 65535).astype(
            np.uint16
        )
        tifffile.imwrite(tmp_path / "measured" / "odd.ome.tif", bright, metadata={"axes": "YX"})
    if spoil == "partner":
        (tmp_path / "truth" / "odd.ome.tif").rename(tmp_path / "truth" / "even.ome.tif")
    if spoil == "folder":
        folders = replace(folders, truth=str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match=words):
        fields_of(folders).exactly(0)


def phase_folders(
    root: Path, seed: int, sign: int = 1, ranges: PhaseRanges = STRONG
) -> tuple[Folders, np.ndarray]:
    """Simulated planes and their phase as two files."""
    pair = simulate_phase(seed, ranges)
    for kind, image in (("measured", pair.planes), ("truth", sign * pair.phase)):
        (root / kind).mkdir()
        tifffile.imwrite(
            root / kind / "cell.tif",
            image.astype(np.float32),
            imagej=True,
            metadata={"axes": "ZYX" if image.ndim == 3 else "YX"},
        )
    optics = {
        name: getattr(pair.microscope, name)
        for name in ("pixel_um", "wavelength_um", "medium_index", "na")
    } | {"condenser_na": pair.condenser_na}
    return Folders(
        measured=str(root / "measured"),
        truth=str(root / "truth"),
        defocus_um=pair.defocus_um,
        **optics,
    ), pair.phase


def test_phase_pairs_are_read_with_their_optics(tmp_path):
    folders, phase = phase_folders(tmp_path, 3)
    found = fields_of(folders, "phase-2shot").exactly(0)
    known = found.known.bool()
    assert found.channels.shape == (13, *found.truth.shape)
    assert known.sum() == phase.size
    assert np.corrcoef(found.truth[known].numpy(), phase.ravel())[0, 1] > 0.9999
    torch.testing.assert_close(found.truth[known].mean(), found.initial_estimate[known].mean())
    assert not found.weights[~known].any()


def test_a_phase_of_opposite_sign_is_said_to_be_so(tmp_path):
    folders, _ = phase_folders(tmp_path, 3, sign=-1)
    with pytest.raises(RequestError, match="reverse the sign of all positions in defocus_um"):
        fields_of(folders, "phase-2shot").exactly(0)


def test_a_measured_stack_is_learned_from_and_judged_with_its_condenser(tmp_path, tiny_phase_model):
    folders, phase = phase_folders(tmp_path, STACK_SEED, ranges=OPEN)
    pair = simulate_phase(STACK_SEED, OPEN)
    assert len(pair.defocus_um) > 2 and pair.condenser_na == 0.3
    found = fields_of(folders, "phase-2shot").exactly(0)
    expected, coherent = (
        phase_field(pair.planes, pair.phase, pair.microscope, pair.defocus_um, na).channels
        for na in (pair.condenser_na, 0.0)
    )
    torch.testing.assert_close(found.channels, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found.channels, coherent, rtol=1e-3, atol=1e-3)
    optics = {
        name: getattr(folders, name)
        for name in (
            "pixel_um",
            "wavelength_um",
            "medium_index",
            "na",
            "defocus_um",
            "condenser_na",
        )
    }
    judged = measured_pairs(tmp_path, read_card(tiny_phase_model), optics).pairs[0]()
    assert (judged.request.defocus_um, judged.request.condenser_na) == (pair.defocus_um, 0.3)
    np.testing.assert_allclose(judged.truth, phase, atol=1e-5)


def test_every_plane_of_a_pair_needs_its_position(tmp_path):
    folders, _ = phase_folders(tmp_path, STACK_SEED, ranges=OPEN)
    with pytest.raises(
        ImageFileError, match="none of length 2, but 2 planes are needed, one for each position"
    ):
        fields_of(replace(folders, defocus_um=(-1.0, 1.0)), "phase-2shot")
    np.save(tmp_path / "x.npy", np.zeros((1, 32, 32, 3), np.float32))
    np.save(tmp_path / "y.npy", np.zeros((1, 32, 32, 1), np.float32))
    arrays = Arrays(
        x=str(tmp_path / "x.npy"),
        y=str(tmp_path / "y.npy"),
        pixel_um=0.2,
        wavelength_um=0.5,
        medium_index=1.0,
        defocus_um=(-1.0, 1.0),
    )
    with pytest.raises(RequestError, match="has 3 planes, but defocus_um has 2 positions"):
        fields_of(arrays, "phase-2shot").exactly(0)
    with pytest.raises(OpticsError, match="same plane twice"):
        replace(arrays, defocus_um=(0.0, 1.0, 1.0))
    with pytest.raises(OpticsError, match=r"condenser_na is 1\.2; allowed is 0 to 1"):
        replace(arrays, condenser_na=1.2)


def test_optics_that_nobody_states_are_asked_for(tmp_path):
    folders, _ = phase_folders(tmp_path, 3)
    with pytest.raises(RequestError, match="wavelength_um not known"):
        fields_of(replace(folders, wavelength_um=None), "phase-2shot").exactly(0)


@given(
    views=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_a_field_of_view_is_on_one_side_only_and_both_sides_have_some(views, share, seed):
    if len(set(views)) < 2:
        with pytest.raises(RequestError, match="at least 2 are needed"):
            held_out_views(views, share, seed)
        return
    kept = held_out_views(views, share, seed)
    assert kept and kept < set(views)
    assert kept == held_out_views(views, share, seed)


def test_frames_of_one_file_stay_together(tmp_path, pairs):
    movies = {
        name: (np.stack([measured, measured + 1]), np.stack([truth, truth]))
        for name, (measured, truth) in pairs.items()
    }
    entries = write_folders(tmp_path, movies).entries("widefield-x2")
    split = split_measured(entries, "widefield-x2", 0, 0.25, register=False)
    assert (split.training.count, len(split.held_out)) == (6, 2)


def test_held_out_fields_of_a_simulation_are_no_training_fields():
    split = split_simulation(replace(CLEAR, field_px=32), 0, 3, fields=8)
    learned = {float(split.training.field(index).truth.sum()) for index in range(16)}
    assert len(learned) <= 8
    assert not learned & {float(make().truth.sum()) for make in split.held_out} - {0.0}


def test_a_clean_image_is_degraded_as_a_simulated_object_is():
    """Emitters give the same image from a simulated field and from a clean image of it.

    The clean image is on the fine grid of the field.
    """
    fine_um = CLEAR.pixel_um[0] / 2
    side = 2 * (CLEAR.field_px + 2 * MARGIN_PX)
    image = np.zeros((side, side), np.float32)
    image[side // 2, side // 2] = 1e4
    pair = simulate_widefield(0, CLEAR, structure_of_image(image, fine_um))
    row, column = np.unravel_index(pair.truth.argmax(), pair.truth.shape)
    assert (row, column) == (pair.truth.shape[0] // 2, pair.truth.shape[1] // 2)
    assert pair.counts.max() > 10 * np.median(pair.counts)


def test_a_clean_phase_is_the_truth_of_its_pair():
    """A phase map that fits the field: the truth is the map, but for its mean."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    phase = np.exp(-8 * (y**2 + x**2))
    ranges = replace(STRONG, na=(0.9, 0.9))
    pair = next(
        pair
        for seed in range(20)
        if (pair := simulate_phase(seed, ranges, phase_of_image(phase, 0.2))).phase.shape
        == phase.shape
    )
    found = pair.phase + pair.phase.mean() - pair.phase.min()
    assert np.corrcoef(found.ravel(), phase.ravel())[0, 1] > 0.999
    assert np.ptp(pair.phase) == pytest.approx(np.ptp(phase), rel=0.02)


def test_clean_images_are_split_like_fields_of_view(tmp_path):
    for seed in SEEDS[:3]:
        write_image(
            tmp_path / f"clean {seed}.ome.tif",
            structured(seed).truth,
            axes="YX",
            pixel_um=0.0313,
            unit="counts",
            name="clean",
        )
    split = split_simulation(
        replace(CLEAR, field_px=48), 0, 2, clean=CleanImages(folder=str(tmp_path)), share=0.34
    )
    assert isinstance(split.training, SimulatedFields)
    assert len(split.training.draws) == 2
    assert split.held_out[0]().truth.shape == (96, 96)
    assert (
        split_simulation(replace(CLEAR, field_px=48), 0, 0, clean=CleanImages(folder=str(tmp_path)))
        .training.field(0)
        .truth.any()
    )


def test_an_empty_field_has_the_noise_of_the_measured_one(tmp_path, pairs):
    source = fields_of(write_folders(tmp_path, pairs))
    blank = source.blank(0)
    assert float(blank.truth.std()) < 1e-5
    assert float(blank.channels[0].std()) > 0


def test_emission_and_immersion_of_a_fluorescence_file_are_its_optics(tmp_path):
    pair = structured(0)
    folders = write_folders(tmp_path, {"a": (pair.counts, pair.truth)})
    said = {
        "axes": "YX",
        "PhysicalSizeX": 0.0626,
        "PhysicalSizeY": 0.0626,
        "Channel": {"EmissionWavelength": 525, "EmissionWavelengthUnit": "nm"},
    }
    tifffile.imwrite(
        tmp_path / "measured" / "a.ome.tif", pair.counts.astype(np.uint16), ome=True, metadata=said
    )
    (entry,) = folders.entries("widefield-x2")
    assert entry.load().optics["wavelength_um"] == pytest.approx(0.525)
