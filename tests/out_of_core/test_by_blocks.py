"""Block by block: the pixels of the whole image and one writer to a chunk.

A killed job can be resumed.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import few_steps, tiny_checkpoint
from small_images import spots, widefield_request
from yaozarrs import validate_zarr_store
from zarr_results import WHOLE_HALO, image_in, ngff_image, stored

from napari_cvdm.cli import main
from napari_cvdm.core.intensity import measured_pixels
from napari_cvdm.core.request import RequestError
from napari_cvdm.core.result import finished as drained
from napari_cvdm.io import ImageFileError, sha256_of
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from napari_cvdm.reconstruction.reconstruct import reconstruct

pytestmark = pytest.mark.usefixtures("few_solver_steps")


@pytest.mark.parametrize("block", [64, 512])
def test_blocks_give_the_pixels_of_the_whole_image(tiny_widefield_model, tmp_path, block):
    image, model = spots((100, 150)), load_model(str(tiny_widefield_model))
    whole = drained(reconstruct(widefield_request(image), model))
    out = tmp_path / "out.ome.zarr"
    drained(
        reconstruct_by_blocks(
            BlockJob(request=widefield_request(image), out=str(out), block=block, halo=WHOLE_HALO),
            model,
        )
    )
    for name in ("mean", "std"):
        expected = getattr(whole, name)
        assert np.abs(image_in(out, name) - expected).max() <= 1e-4 * np.ptp(expected), name
    assert np.array_equal(image_in(out, "valid") > 0, whole.valid)
    said = json.loads((out / "provenance.json").read_text())
    assert said["pixels_sha256"] == {image.source: sha256_of(image.array)}
    (frame,), (wanted,) = said["estimated"]["frames"], whole.provenance.estimated["frames"]
    assert frame["optics"] == wanted["optics"] != "stated" and frame["cutoff_px"] == pytest.approx(
        wanted["cutoff_px"]
    )
    assert any("give NA and wavelength" in warning for warning in said["warnings"])
    validate_zarr_store(str(out))


@pytest.mark.parametrize("task_name", ["denoise", "widefield-x2"])
def test_a_border_of_zeros_is_not_measured_in_either_path(task_name, tmp_path):
    """As after registration: the whole image, and blocks of zeros and of NaN, give one result.

    `tests/tasks/test_phase_blocks.py` has the same of a phase.
    """
    image = spots((72, 100))
    counts = image.array.copy()
    counts[:, -7:] = 0
    counts[:10] = 0
    model = load_model(str(tiny_checkpoint(task_name, tmp_path / "model")))
    request = widefield_request(replace(image, array=counts), steps=2)
    whole, found = drained(reconstruct(request, model)), []
    unmeasured = np.where(measured_pixels(counts), counts.astype(np.float32), np.nan)
    for name, array in (("zeros", counts), ("nan", unmeasured)):
        one = replace(request, image=replace(image, array=array))
        job = BlockJob(request=one, out=str(tmp_path / f"{name}.ome.zarr"), block=64, halo=64)
        found.append(Path(drained(reconstruct_by_blocks(job, model)).path))
    zeros, nan = ({name: image_in(one, name) for name in ("mean", "std", "valid")} for one in found)
    for name in zeros:
        np.testing.assert_allclose(zeros[name], nan[name], atol=1e-3 * np.ptp(nan[name]))
    np.testing.assert_array_equal(zeros["valid"] > 0, whole.valid)
    error = np.abs(zeros["mean"] - whole.mean)[whole.valid]
    assert error.max() <= 0.03 * np.ptp(whole.mean[whole.valid])


@pytest.fixture(scope="module")
def from_memory(
    tiny_widefield_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """All files of a result whose image was in memory."""
    out = tmp_path_factory.mktemp("memory") / "out.ome.zarr"
    request = widefield_request(spots((80, 100)), model=str(tiny_widefield_model), steps=2)
    with few_steps():
        drained(
            reconstruct_by_blocks(
                BlockJob(request=request, out=str(out), block=64),
                load_model(str(tiny_widefield_model)),
            )
        )
    return stored(out)


@pytest.mark.parametrize("kind", ["0.4", "0.5", "plain.tif", "tiled.tif", "npy"])
def test_every_way_in_gives_the_same_pixels(
    tiny_widefield_model, tmp_path, kind, from_memory, capsys
):
    image = spots((80, 100))
    if kind.startswith("0"):
        path = ngff_image(tmp_path / "in.ome.zarr", image, kind)
    elif kind == "npy":
        path = tmp_path / "in.npy"
        np.save(path, image.array)
    else:
        path = tmp_path / kind
        tiles = {"tile": (64, 64), "compression": "zlib"} if kind == "tiled.tif" else {}
        tifffile.imwrite(path, image.array, **tiles)
    out, sized = tmp_path / "out.ome.zarr", ["--pixel-um", "0.065"]
    words = [
        "restore",
        str(path),
        "--model",
        str(tiny_widefield_model),
        "--out",
        str(out),
        "--block",
        "64",
        "--samples",
        "2",
        "--steps",
        "2",
    ]
    assert main([*words, *sized]) == 0, capsys.readouterr().err
    assert stored(out) == from_memory


def test_a_job_that_was_killed_goes_on_to_the_same_bytes(tiny_widefield_model, tmp_path):
    model, done = load_model(str(tiny_widefield_model)), {}
    jobs = {
        name: BlockJob(
            request=widefield_request(spots((100, 130))),
            out=str(tmp_path / f"{name}.ome.zarr"),
            block=64,
        )
        for name in ("one", "two")
    }
    drained(reconstruct_by_blocks(jobs["one"], model))
    steps = reconstruct_by_blocks(jobs["two"], model)
    while done.get("done", 0) < 15:  # two of six blocks, and half of the third
        done["done"] = next(steps).done
    steps.close()
    assert not Path(jobs["two"].out).exists()
    marks = list((tmp_path / "two.part.ome.zarr" / ".napari-cvdm" / "done").iterdir())
    written = {mark.name: mark.stat().st_mtime_ns for mark in marks}
    result = drained(reconstruct_by_blocks(jobs["two"], model))
    assert 0 < result.earlier == len(written) < result.blocks == 6
    assert {
        name: (Path(jobs["two"].out) / ".napari-cvdm" / "done" / name).stat().st_mtime_ns
        for name in written
    } == written
    assert stored(Path(jobs["one"].out)) == stored(Path(jobs["two"].out))


@pytest.mark.parametrize("choice", [{"region": (0, 40, 0, 40)}, {"schedule_points": 3}])
def test_regions_and_schedules_are_refused_block_by_block(choice, tmp_path):
    with pytest.raises(RequestError, match="cannot be had block by block"):
        BlockJob(
            request=widefield_request(spots((100, 130)), **choice),
            out=str(tmp_path / "out.ome.zarr"),
        )


def test_another_plan_does_not_go_on_where_one_was_stopped(tiny_widefield_model, tmp_path):
    model, out = load_model(str(tiny_widefield_model)), str(tmp_path / "out.ome.zarr")
    steps = reconstruct_by_blocks(
        BlockJob(request=widefield_request(spots((100, 130))), out=out, block=64), model
    )
    while next(steps).done < 12:
        pass
    steps.close()
    other = BlockJob(request=widefield_request(spots((100, 130)), seed=5), out=out, block=64)
    with pytest.raises(ImageFileError, match="settings differ"):
        drained(reconstruct_by_blocks(other, model))
    again = BlockJob(request=other.request, out=out, block=64, overwrite=True)
    assert drained(reconstruct_by_blocks(again, model)).earlier == 0
    with pytest.raises(ImageFileError, match="exists already"):
        drained(reconstruct_by_blocks(other, model))
