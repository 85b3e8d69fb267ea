"""Fields that were inverted before a training: kept whole, made once, a function of their seed."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from napari_cvdm.core.request import RequestError
from napari_cvdm.io.atomic import temporary_name
from napari_cvdm.simulate.ranges import DenoisingRanges, PhaseRanges, WidefieldRanges
from napari_cvdm.simulate.scenes import simulate_fluorescence, simulate_phase
from napari_cvdm.tasks import FLUORESCENCE
from napari_cvdm.tasks.phase_input import CHANNELS
from napari_cvdm.tasks.phase_inversion import PhaseMaps
from napari_cvdm.training import sources
from napari_cvdm.training.pool import FieldPool, phase_field, simulated_fluorescence, solved_field
from napari_cvdm.training.sources import (
    COARSE,
    RECORD,
    SolvedField,
    SolvedFields,
    SolvedSource,
    load_field,
    load_training_field,
    save_field,
    solve_field,
    solve_missing,
    split_solved,
)

SMALL = PhaseRanges(field_px=(48, 48), fresnel=(8, 20), photons=(3000, 3000))


@pytest.fixture(scope="module")
def solved() -> SolvedField:
    return solve_field(3, SMALL)


def test_a_field_is_a_function_of_its_seed(solved):
    again, other = solve_field(3, SMALL), solve_field(4, SMALL)
    for entry in fields(PhaseMaps):
        assert np.array_equal(getattr(solved.maps, entry.name), getattr(again.maps, entry.name))
    assert np.array_equal(solved.truth, again.truth)
    assert not np.array_equal(solved.truth, other.truth)


def test_its_truth_is_that_of_the_simulation(solved):
    pair = simulate_phase(3, SMALL)
    assert np.array_equal(solved.truth, pair.phase)
    assert solved.maps.phase[solved.maps.frame].shape == pair.phase.shape


def test_a_field_comes_back_from_its_file(solved, tmp_path):
    save_field(tmp_path / "one.npz", solved)
    again = load_field(tmp_path / "one.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]
    assert np.array_equal(again.truth, solved.truth)
    assert again.maps.frame == solved.maps.frame
    for entry in fields(PhaseMaps):
        kept, made = (getattr(one.maps, entry.name) for one in (again, solved))
        if entry.name in COARSE:
            np.testing.assert_allclose(kept, made, rtol=1e-3, atol=1e-6 + 1e-3 * np.std(made))
        elif entry.name != "frame":
            np.testing.assert_allclose(kept, made, rtol=1e-6)


def test_pulls_too_large_for_half_precision_stay_finite(solved, tmp_path):
    large = replace(
        solved,
        maps=replace(solved.maps, pull=1e6 * solved.maps.pull, misfit=1e9 * solved.maps.misfit),
    )
    save_field(tmp_path / "one.npz", large)
    again = load_field(tmp_path / "one.npz")
    np.testing.assert_allclose(again.maps.pull, large.maps.pull, rtol=1e-6)
    assert np.isfinite(again.maps.misfit).all()
    assert solved_field(again.maps, again.truth).channels.isfinite().all()


def test_a_solved_field_is_what_a_measured_one_becomes(solved):
    """Training and use see the same channels; seeds choose the draws of the width."""
    pair = simulate_phase(3, SMALL)
    measured = phase_field(
        pair.planes, pair.phase, pair.microscope, pair.defocus_um, pair.condenser_na
    )
    trained = solved_field(solved.maps, solved.truth)
    assert trained.channels.shape == measured.channels.shape
    for number, name in enumerate(CHANNELS):
        if "width" not in name:
            continue
        error = (trained.channels[number] - measured.channels[number]).abs().mean()
        assert float(error) < 0.3, name
    found, known = (entry.known.bool() for entry in (trained, measured))
    assert torch.equal(found, known)
    assert trained.known.sum() == pair.phase.size


def test_what_is_there_is_kept_and_what_is_missing_is_solved(tmp_path, monkeypatch):
    made = []

    def solve(seed, ranges):
        made.append(seed)
        return solve_once

    solve_once = solve_field(0, SMALL)
    monkeypatch.setattr(sources, "solve_field", solve)
    folder = tmp_path / "new" / "fields"
    assert list(solve_missing(folder, SMALL, 70, range(2))) == [0, 1]
    np.savez(folder / "000001.npz", kept="as it is")
    kept = (folder / "000001.npz").read_bytes()
    assert list(solve_missing(folder, SMALL, 70, range(4))) == [0, 1, 2, 3]
    assert made == [70, 71, 72, 73]
    assert (folder / "000001.npz").read_bytes() == kept
    assert sorted(path.name for path in folder.glob("*.npz")) == [
        f"{number:06d}.npz" for number in range(4)
    ]


def test_a_field_that_was_cut_short_is_solved_again(tmp_path, monkeypatch, solved):
    """What a killed process left has no name that is read, and goes. An empty file is no field."""
    folder = tmp_path / "fields"
    folder.mkdir()
    (folder / temporary_name()).write_bytes(b"half")
    (folder / "000000.npz").touch()
    monkeypatch.setattr(sources, "solve_field", lambda seed, ranges: solved)
    assert list(solve_missing(folder, SMALL, 0, range(1))) == [0]
    assert sorted(path.name for path in folder.iterdir()) == ["000000.npz", RECORD]
    assert np.array_equal(load_field(folder / "000000.npz").truth, solved.truth)


def test_solving_stops_between_two_fields(tmp_path, monkeypatch, solved):
    monkeypatch.setattr(sources, "solve_field", lambda seed, ranges: solved)
    steps = solve_missing(tmp_path / "fields", SMALL, 0, range(9))
    next(steps)
    steps.close()
    assert sorted(path.name for path in (tmp_path / "fields").iterdir()) == ["000000.npz", RECORD]


@pytest.mark.parametrize(
    ("seed", "ranges", "what"),
    [(1, SMALL, "seed"), (0, replace(SMALL, photons=(1e3, 1e4)), "ranges")],
)
def test_a_folder_holds_fields_of_one_kind(seed, ranges, what, tmp_path, monkeypatch, solved):
    monkeypatch.setattr(sources, "solve_field", lambda seed, ranges: solved)
    folder = tmp_path / "fields"
    assert list(solve_missing(folder, SMALL, 0, range(1))) == [0]
    with pytest.raises(RequestError, match=f"other {what}"):
        list(solve_missing(folder, ranges, seed, range(2)))
    assert not (folder / "000001.npz").exists()
    if ranges != SMALL:
        with pytest.raises(RequestError, match="other ranges"):
            split_solved(SolvedFields(folder=str(folder)), ranges, 0, 0)


@pytest.fixture
def folder(tmp_path, solved):
    """Four files whose truths are told apart by a number."""
    for number in range(4):
        maps = solved.maps
        truth = solved.truth * (1 + number)
        save_field(tmp_path / f"{number:06d}.npz", SolvedField(maps=maps, truth=truth))
    return tmp_path


def test_each_solved_field_comes_once_in_a_pass(folder):
    paths = SolvedFields(folder=str(folder)).paths()
    source = SolvedSource(paths=paths, seed=1)
    for number in range(2):
        passed = sorted(float(source.field(4 * number + index).truth.std()) for index in range(4))
        assert passed == sorted(float(load_training_field(path).truth.std()) for path in paths)


def test_the_first_fields_are_held_out_whatever_is_added_later(folder, solved):
    split = split_solved(SolvedFields(folder=str(folder)), SMALL, 0, 1)
    assert (split.training.count, len(split.held_out)) == (3, 1)
    held_out = split.held_out[0]().truth
    save_field(folder / "000004.npz", solved)
    more = split_solved(SolvedFields(folder=str(folder)), SMALL, 0, 1)
    assert more.training.count == 4
    assert torch.equal(more.held_out[0]().truth, held_out)


def test_too_few_solved_fields_are_refused(folder, tmp_path):
    with pytest.raises(RequestError, match="4 are to be held out"):
        split_solved(SolvedFields(folder=str(folder)), SMALL, 0, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="simulate phase --solved"):
        SolvedFields(folder=str(tmp_path / "empty")).paths()


def test_patches_of_solved_fields_do_not_count_what_lies_outside_the_frame(folder):
    source = SolvedSource(paths=SolvedFields(folder=str(folder)).paths(), seed=1)
    batch = FieldPool(source, 4, 0.0, 0).batch(0, 6, 32)
    inside = batch.channels[:, CHANNELS.index("frame")]
    assert torch.equal(batch.weight[:, 0] > 0, inside > 0)
    assert batch.channels.shape == (6, len(CHANNELS), 32, 32)


@pytest.mark.parametrize("ranges", [WidefieldRanges(field_px=40), DenoisingRanges(field_px=40)])
def test_fluorescence_fields_are_those_of_the_simulation_to_half_precision(ranges, tmp_path):
    assert list(solve_missing(tmp_path, ranges, 7, range(2))) == [0, 1]
    for number in range(2):
        kept = load_training_field(tmp_path / f"{number:06d}.npz")
        made = simulated_fluorescence(
            FLUORESCENCE[ranges.task], simulate_fluorescence(7 + number, ranges), 7 + number
        )
        assert (kept.fine_channels, kept.pixel_um) == (made.fine_channels, made.pixel_um)
        assert kept.weight == pytest.approx(made.weight)
        for name in ("channels", "initial_estimate", "truth"):
            torch.testing.assert_close(
                getattr(kept, name), getattr(made, name), rtol=1e-3, atol=1e-4
            )
    with pytest.raises(RequestError, match="other"):
        next(solve_missing(tmp_path, replace(ranges, photons=(9.0, 99.0)), 7, range(1)))
