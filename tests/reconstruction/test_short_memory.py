"""Too little memory: the tile is halved, said, and the result is the same; nothing stays behind."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint
from small_images import spots, widefield_request
from zarr_results import WHOLE_HALO, image_in

from napari_cvdm.core.result import finished as drained
from napari_cvdm.models import tiled
from napari_cvdm.models.registry import load_model
from napari_cvdm.out_of_core.job import BlockJob
from napari_cvdm.out_of_core.run import reconstruct_by_blocks
from napari_cvdm.reconstruction.reconstruct import reconstruct

LIMITED = """
import resource, sys
import numpy as np
import torch
from napari_cvdm.models.registry import load_model
from napari_cvdm.core.request import ImageStack, ReconstructionRequest
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.core.result import finished as drained
from napari_cvdm.tasks import deconvolved

deconvolved.ITERATIONS = (1, 2, 4)  # what takes memory is the network

def finished(size, tile):
    image = ImageStack(array=np.random.default_rng(0).poisson(100, \
(size, size)).astype(np.uint16), axes="YX", pixel_um=0.065)
    return drained(reconstruct(ReconstructionRequest(image=image, model="tiny", samples=1, \
steps=1, device="cpu", tile=tile), load_model(sys.argv[1])))

torch.set_num_threads(1)
free = finished(512, 64)  # loads every library, and shows how much the whole canvas needs
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20,) * 2)
result = finished(512, 4096)
print(result.provenance.estimated["tile_used"], float(np.abs(result.mean - free.mean).max() \
/ np.ptp(free.mean)), *result.provenance.warnings)
"""


@pytest.mark.stress  # a planted shortage is below, and in test_reconstruct
@pytest.mark.skipif(
    sys.platform != "linux", reason="the size of a process is limited as Linux does it"
)
def test_a_real_shortage_halves_the_tile_says_so_and_changes_no_pixel(tmp_path: Path) -> None:
    wide = tiny_checkpoint(
        "widefield-x2", tmp_path, widths=(48, 48)
    )  # its features are much larger than the image
    command = [sys.executable, "-c", LIMITED, str(wide), "240"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    tile, error, warning = ended.stdout.split(maxsplit=2)
    assert 16 <= int(tile) < 512
    assert float(error) <= 1e-5
    assert f"tiles of {tile} px" in warning


def alive() -> int:
    """Bytes of all tensors that something still holds."""
    gc.collect()
    held = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if issubclass(type(thing), torch.Tensor)
    }
    return sum(held.values())


@pytest.mark.usefixtures("few_solver_steps")
def test_a_planted_shortage_of_the_device_halves_the_tile_of_a_block(
    tiny_widefield_model, tmp_path, monkeypatch
):
    model, request = load_model(str(tiny_widefield_model)), widefield_request(spots((100, 150)))
    really, out = tiled.map_tiles, str(tmp_path / "out.ome.zarr")

    def small_device(function, images, plan, *, factor_out):
        if len(plan.tiles) < 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return really(function, images, plan, factor_out=factor_out)

    monkeypatch.setattr(tiled, "map_tiles", small_device)
    made = drained(
        reconstruct_by_blocks(BlockJob(request=request, out=out, block=512, halo=WHOLE_HALO), model)
    )
    monkeypatch.setattr(tiled, "map_tiles", really)
    whole = drained(reconstruct(request, model))
    assert any("tiles of 50 px were used in place of 512" in warning for warning in made.warnings)
    assert np.abs(image_in(Path(out), "mean") - whole.mean).max() <= 1e-5 * np.ptp(whole.mean)


@pytest.mark.usefixtures("few_solver_steps")
def test_nothing_is_kept_after_a_run_nor_after_an_error(
    tiny_widefield_model, tmp_path, monkeypatch
):
    model, request = load_model(str(tiny_widefield_model)), widefield_request(spots((100, 150)))
    before = alive()
    drained(
        reconstruct_by_blocks(
            BlockJob(request=request, out=str(tmp_path / "out.ome.zarr"), block=64, halo=64), model
        )
    )
    assert alive() == before

    def no_memory(function, images, plan, *, factor_out):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiled, "map_tiles", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        drained(
            reconstruct_by_blocks(
                BlockJob(request=request, out=str(tmp_path / "other.ome.zarr"), block=64, halo=64),
                model,
            )
        )
    assert alive() == before
