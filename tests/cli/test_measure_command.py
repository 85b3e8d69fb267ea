"""``measure`` and ``plan``: the numbers of the core, in a table and in a sentence."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from defocus_pairs import MICROSCOPE, pair

from napari_cvdm.analysis.measure import ResultField, measure_objects
from napari_cvdm.cli import main
from napari_cvdm.cli.options import ALPHA_UM3_PER_PG
from napari_cvdm.io import write_image
from napari_cvdm.io.result_folder import read_result_folder

OPTICS = [
    *("--wavelength-um", str(MICROSCOPE.wavelength_um)),
    *("--medium-index", str(MICROSCOPE.medium_index)),
    *("--defocus-um", "-1", "1"),
]


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two planes of small cells in one file."""
    path = tmp_path_factory.mktemp("planes") / "planes.ome.tif"
    counts = (1000 * pair((80, 80))).astype(np.float32)
    pixel_um = MICROSCOPE.pixel_um
    write_image(path, counts, axes="PYX", pixel_um=pixel_um, unit="counts", name="planes")
    return path


@pytest.fixture(scope="module")
def result(planes: Path, tiny_phase_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with its samples."""
    out = tmp_path_factory.mktemp("results") / "cells"
    quick = ["--samples", "3", "--steps", "2", "--device", "cpu", "--keep-samples"]
    words = ["restore", str(planes), "--model", str(tiny_phase_model), "--out", str(out)]
    assert main([*words, *quick, *OPTICS]) == 0
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_mask_of_labels_is_measured_as_the_core_does(result: Path, tmp_path: Path) -> None:
    labels = np.zeros((80, 80), np.uint8)
    labels[15:45, 15:45], labels[60:70, 60:70] = 3, 7
    tifffile.imwrite(tmp_path / "mask.tif", labels)
    out = tmp_path / "objects.csv"
    words = ["measure", str(result), "--mask", str(tmp_path / "mask.tif"), "--out", str(out)]
    assert main(words) == 0
    stored = read_result_folder(result).reconstruction
    expected = measure_objects(
        ResultField(
            image=stored.mean,
            samples=stored.samples,
            trusted=stored.valid,
            pixel_um=stored.pixel_um,
            wavelength_um=MICROSCOPE.wavelength_um,
        ),
        labels.astype(int),
        ALPHA_UM3_PER_PG,
    )
    rows = rows_of(out)
    assert [row["region"] for row in rows] == ["3", "7"]
    assert [float(row["dry_mass_pg"]) for row in rows] == [one.mass_pg.value for one in expected]
    assert [float(row["sum_high"]) for row in rows] == [one.total.high for one in expected]
    assert main(words) == 2  # a table is not replaced unasked
    assert main([*words, "--overwrite", "--alpha", "0.36"]) == 0
    halved = [2 * float(row["dry_mass_pg"]) for row in rows_of(out)]
    np.testing.assert_allclose(halved, [one.mass_pg.value for one in expected])


def test_without_a_mask_one_is_suggested_and_areas_have_intervals(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "objects.csv"
    assert main(["measure", str(result), "--out", str(out)]) == 0
    rows = rows_of(out)
    assert rows
    assert {row["mask"] for row in rows} == {"suggested"}
    assert any(row["area_um2_low"] != "" for row in rows)
    bare = tmp_path / "bare"
    shutil.copytree(result, bare)
    (bare / "samples.ome.tif").unlink()
    assert main(["measure", str(bare), "--out", str(tmp_path / "bare.csv")]) == 0
    assert "--keep-samples" in capsys.readouterr().out
    assert {row["area_um2_low"] for row in rows_of(tmp_path / "bare.csv")} == {""}


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((8, 9), np.uint8), "draw the mask on the result"),
        (np.full((80, 80), 0.5, np.float32), "no labels"),
        (np.zeros((80, 80), np.uint8), "the mask is empty"),
    ],
)
def test_masks_that_do_not_fit_are_answered_in_words(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mask: np.ndarray, words: str
) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    out = tmp_path / "objects.csv"
    assert (
        main(["measure", str(result), "--mask", str(tmp_path / "mask.tif"), "--out", str(out)]) == 2
    )
    assert words in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("remembered_inversions")
def test_the_plan_says_a_sentence_and_writes_the_curve(
    planes: Path, tiny_phase_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curve.csv"
    words = ["plan", str(planes), "--model", str(tiny_phase_model), "--out", str(out), *OPTICS]
    assert main([*words, "--device", "cpu"]) == 0
    assert "Twice the light: error" in capsys.readouterr().out
    distances = [float(row["half_distance_um"]) for row in rows_of(out)]
    assert distances == sorted(distances)
    assert all(float(row["expected_error_rad"]) > 0 for row in rows_of(out))
