"""Block by block: the pixels of the whole image, one writer to a chunk, and a killed job that goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_images import spots, widefield_request
from yaozarrs import validate_zarr_store

from napari_cvdm.by_tiles import TiledRequest, restore_by_tiles
from napari_cvdm.image_files import sha256_of
from napari_cvdm.model.zoo import load_model
from napari_cvdm.restore import restore

WHOLE_HALO = 64  # more than the tiny networks see in three evaluations


def drained(steps):
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def image_in(path: Path, name: str, level: int = 0) -> np.ndarray:
    return np.asarray(zarr.open_array(str(path / name / str(level)), mode="r"))


def stored(path: Path) -> dict[str, bytes]:
    """All that readers see: every file but the notes on the run."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and ".napari-cvdm" not in file.parts and file.name != "provenance.json")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize("block", [64, 128, 512])
def test_blocks_give_the_pixels_of_the_whole_image(tiny_widefield_model, tmp_path, block):
    image, model = spots((150, 213)), load_model(str(tiny_widefield_model))
    whole = drained(restore(widefield_request(image), model))
    out = tmp_path / "out.ome.zarr"
    drained(restore_by_tiles(TiledRequest(request=widefield_request(image), out=str(out), block=block, halo=WHOLE_HALO), model))
    for name in ("mean", "std"):
        expected = getattr(whole, name)
        assert np.abs(image_in(out, name) - expected).max() <= 1e-4 * np.ptp(expected), name
    assert np.array_equal(image_in(out, "valid") > 0, whole.valid)
    assert json.loads((out / "provenance.json").read_text())["plan"]["image"]["sha256"] == sha256_of(image.array)
    validate_zarr_store(str(out))
