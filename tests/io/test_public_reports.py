"""Files of public bug reports: read as they are meant, or refused with what to try.

Each test names the report, and is about its kind. The reports are of other programs.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from zarr_results import ngff_image

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io import ImageFileError, read_image, vendor
from napari_cvdm.io.metadata import length_um, stated_number
from napari_cvdm.io.read import open_image

COUNTS = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) + 100
STACK = np.stack([COUNTS + 10 * number for number in range(6)])
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
    'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="40" SizeY="48" SizeC="1" SizeZ="1" '
    'SizeT="1" PhysicalSizeX="{size}" PhysicalSizeY="{size}"><Channel ID="Channel:0:0" '
    'SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)
both = pytest.mark.parametrize("read", [read_image, open_image])


def tif(folder: Path, array: np.ndarray = COUNTS, **how: Any) -> Path:
    """A TIFF as some program writes it."""
    how = {"photometric": "minisblack", "metadata": None, **how}
    tifffile.imwrite(folder / "a.tif", array, **how)
    return folder / "a.tif"


def drop_tag(path: Path, code: int) -> Path:
    """The same file with one tag under the number of an older one, which means nothing here."""
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.tags[code].offset
    raw = bytearray(path.read_bytes())
    raw[start : start + 2] = (code - 1).to_bytes(2, "little")
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("unit", ["Âµm", "Î¼m", "?m", "\ufffdm", "&#181;m", "&micro;m"])
def test_a_micro_sign_that_lost_its_encoding(tmp_path: Path, unit: str) -> None:
    """WU-BIMAC/MicroMetaApp-React#28."""
    assert length_um(0.065, unit) == pytest.approx(0.065)
    words = f"ImageJ=1.54f\nunit={unit}\n".encode()
    path = tif(tmp_path, description=words, resolution=(1 / 0.065,) * 2)
    assert read_image(path).pixel_um == pytest.approx(0.065)


def test_a_decimal_comma(tmp_path: Path) -> None:
    """micro-manager/micro-manager#2437, ome/bioformats#2129."""
    assert read_image(tif(tmp_path, description=OME.format(size="0,065"))).pixel_um == 0.065
    words = "ImageJ=1.54f\nimages=6\nslices=6\nunit=um\nspacing=0,3\nfinterval=0,5\n"
    image = read_image(tif(tmp_path, STACK, description=words))
    assert image.place == {"z_step_um": 0.3, "frame_interval_s": 0.5}
    assert [stated_number(one) for one in ("1,234,5", "", None, [2])] == [None] * 4


def test_a_z_unit_of_its_own(tmp_path: Path) -> None:
    """ilastik/ilastik#3094."""
    words = "ImageJ=1.54f\nimages=6\nslices=6\nunit=micron\nzunit=nm\nspacing=300\n"
    path = tif(tmp_path, STACK, description=words, resolution=(1 / 0.065,) * 2)
    assert read_image(path).place["z_step_um"] == pytest.approx(0.3)


def test_units_of_a_file_that_was_not_written_for_imagej(tmp_path: Path) -> None:
    """cgohlke/tifffile#71."""
    said = {"axes": "ZYX", "unit": "um", "spacing": 0.3}
    image = read_image(tif(tmp_path, STACK, metadata=said, resolution=(1 / 0.065,) * 2))
    assert (image.axes, image.place) == ("ZYX", {"z_step_um": 0.3})
    assert image.pixel_um == pytest.approx(0.065)
    assert image.origins["pixel_um"] == "the description of a.tif"


@both
def test_ome_with_a_prefix_or_behind_a_long_comment(tmp_path: Path, read: Any) -> None:
    """imaging-formats/ome-types#89, cgohlke/tifffile#173."""
    plain = OME.format(size=0.065)
    prefixed = plain.replace("<", "<ome:").replace("<ome:/", "</ome:").replace("xmlns", "xmlns:ome")
    for xml in (prefixed, f"<!-- {'x' * 3000} -->{plain}", plain + "\n\n"):
        assert read(tif(tmp_path, description=xml)).pixel_um == 0.065


def test_limits_hold_for_ome_with_a_prefix(tmp_path: Path) -> None:
    """imaging-formats/ome-types#89."""
    xml = OME.format(size=0.065).replace('SizeT="1"', 'SizeT="99999999"')
    xml = xml.replace("<", "<ome:").replace("<ome:/", "</ome:").replace("xmlns", "xmlns:ome")
    with pytest.raises(ImageFileError, match="planes"):
        read_image(tif(tmp_path, description=xml))


@both
def test_a_file_without_its_photometric_tag_is_not_turned_round(tmp_path: Path, read: Any) -> None:
    """photopea/UTIF.js#85, haraldk/TwelveMonkeys#251."""
    image = read(drop_tag(tif(tmp_path), 262))
    np.testing.assert_array_equal(np.asarray(image.array), COUNTS)
    assert "black was taken" in image.warnings[0]


@both
def test_white_is_zero_in_one_bit(tmp_path: Path, read: Any) -> None:
    """python-pillow/Pillow#4804, image-rs/image-tiff#296."""
    bright = COUNTS > 500
    path = tif(tmp_path, ~bright, photometric="miniswhite")
    np.testing.assert_array_equal(np.asarray(read(path).array), bright)


@both
def test_alpha_is_the_sample_that_says_so(tmp_path: Path, read: Any) -> None:
    """SerenityOS/serenity#22375, geosolutions-it/imageio-ext#164."""
    samples = np.stack([COUNTS + number for number in range(4)], axis=-1)
    path = tif(tmp_path, samples, planarconfig="contig", extrasamples=[2, 0, 0])
    np.testing.assert_array_equal(
        np.asarray(read(path).array), np.moveaxis(samples, -1, 0)[[0, 2, 3]]
    )


@both
@pytest.mark.parametrize("rows", [48, 7])
@pytest.mark.parametrize("stated", [0, 60000, None])
def test_sizes_of_strips_that_are_wrong_or_missing(
    tmp_path: Path, read: Any, rows: int, stated: int | None
) -> None:
    """haraldk/TwelveMonkeys#449, image-js/tiff#38, ome/bioformats#1423."""
    path = tif(tmp_path, rowsperstrip=rows)
    if stated is None:
        drop_tag(path, 279)
    else:
        write_sizes(path, stated)
    np.testing.assert_array_equal(np.asarray(read(path).array), COUNTS)


def write_sizes(path: Path, size: int) -> None:
    """Make the size of every strip of a file this one."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages.first.tags[279]
        tag.overwrite([size] * tag.count)


def test_pixels_that_are_not_there_are_still_missed(tmp_path: Path) -> None:
    """haraldk/TwelveMonkeys#449."""
    path = tif(tmp_path)
    write_sizes(path, 0)
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(ImageFileError, match="cut short"):
        read_image(path)


@both
@pytest.mark.parametrize(
    ("words", "named"),
    [(OME.format(size=0.065), 1), ("ImageJ=1.54f\nimages=4\nslices=4\nunit=um\n", 4)],
)
def test_pages_that_the_header_does_not_name_are_counted(
    tmp_path: Path, read: Any, words: str, named: int
) -> None:
    """scifio/scifio#212, cgohlke/tifffile#199."""
    image = read(tif(tmp_path, STACK, description=words))
    assert f"names {named} of 6 pages" in image.warnings[0]


def mrc(folder: Path, array: np.ndarray, voxel: Any = 650.0, **header: bytes) -> Path:
    """An MRC file with some bytes of its header changed: ``at_152`` are those from 152 on."""
    with mrcfile.new(folder / "a.mrc", overwrite=True) as file:
        file.set_data(array)
        file.voxel_size = voxel
    raw = bytearray((folder / "a.mrc").read_bytes())
    for name, value in header.items():
        start = int(name.removeprefix("at_"))
        raw[start : start + len(value)] = value
    (folder / "a.mrc").write_bytes(raw)
    return folder / "a.mrc"


@pytest.mark.parametrize(("flags", "signed"), [(0, False), (1, True), (None, True)])
def test_bytes_of_imod_have_no_sign_unless_it_says_so(
    tmp_path: Path, flags: int | None, signed: bool
) -> None:
    """ome/bioformats#3975, ccpem/mrcfile#25, ccpem/mrcfile#69."""
    counts = (COUNTS % 256).astype(np.uint8)
    stamp = {} if flags is None else {"at_152": np.array([1146047817, flags], "<i4").tobytes()}
    image = read_image(mrc(tmp_path, counts.view(np.int8), **stamp))
    np.testing.assert_array_equal(image.array, counts.view(np.int8) if signed else counts)


def test_axes_of_mrc_are_where_the_header_says(tmp_path: Path) -> None:
    """ccpem/mrcfile#23, odlgroup/odl#990."""
    turned = np.ascontiguousarray(STACK.transpose(2, 1, 0))
    order = np.array([3, 2, 1], "<i4").tobytes()
    image = read_image(mrc(tmp_path, turned, at_64=order))
    assert image.axes == "ZYX"
    np.testing.assert_array_equal(image.array, STACK)
    broken = read_image(mrc(tmp_path, STACK, at_64=bytes(12)))
    np.testing.assert_array_equal(broken.array, STACK)


@pytest.mark.parametrize(("z", "step"), [(3000.0, 0.3), (0.0, None)])
def test_the_z_step_of_mrc(tmp_path: Path, z: float, step: float | None) -> None:
    """hyperspy/rosettasciio#131."""
    image = read_image(mrc(tmp_path, STACK.astype(np.float16), (650.0, 650.0, z)))
    assert image.pixel_um == pytest.approx(0.065)
    assert image.place.get("z_step_um") == (None if step is None else pytest.approx(step))


AXES = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
SCALE = [{"type": "scale", "scale": [0.065, 0.065]}]


def ngff(folder: Path, array: np.ndarray = COUNTS, dataset: Any = None, **said: Any) -> Path:
    """An OME-Zarr of Zarr 2 with these metadata."""
    root = zarr.open_group(str(folder / "a.ome.zarr"), mode="w", zarr_format=2)
    chunks = (1,) * (array.ndim - 2) + (16, 16)
    root.create_array("0", shape=array.shape, dtype=array.dtype, chunks=chunks)[...] = array
    dataset = {"coordinateTransformations": SCALE} if dataset is None else dataset
    root.attrs["multiscales"] = [
        {"version": "0.4", "axes": AXES, "datasets": [{"path": "0", **dataset}], **said}
    ]
    return folder / "a.ome.zarr"


@pytest.mark.parametrize("said", [{}, {"axes": ["y", "x"], "version": "0.3"}, {"axes": AXES}])
def test_files_older_than_transformations_have_no_pixel_size(tmp_path: Path, said: Any) -> None:
    """mobie/mobie-viewer-fiji#440, ome/napari-ome-zarr#157."""
    array = COUNTS if said else STACK.reshape(1, 2, 3, 48, 40)
    image = open_image(ngff(tmp_path, array, {}, **({"axes": None, "version": "0.2"} | said)))
    assert (image.axes, image.pixel_um) == ("YX" if said else "CZYX", None)
    assert not {"z_step_um", "frame_interval_s"} & set(image.place)
    np.testing.assert_array_equal(np.asarray(image.array), np.squeeze(array))


def test_a_pixel_size_that_is_stated_for_all_levels_only(tmp_path: Path) -> None:
    """fractal-analytics-platform/fractal-client#112, ome/napari-ome-zarr#73."""
    assert open_image(ngff(tmp_path, dataset={}, coordinateTransformations=SCALE)).pixel_um == 0.065


def test_a_scale_that_is_shorter_than_the_axes(tmp_path: Path) -> None:
    """fractal-analytics-platform/fractal-tasks-core#420."""
    axes = [{"name": "c", "type": "channel"}, *AXES]
    image = open_image(ngff(tmp_path, STACK, axes=axes))
    assert (image.axes, image.pixel_um) == ("CYX", 0.065)
    assert "2 numbers for 3 axes" in image.warnings[0]


def test_entries_that_are_null_cost_no_pixel(tmp_path: Path) -> None:
    """scverse/spatialdata#202."""
    path = ngff(tmp_path, coordinateTransformations=None)
    zarr.open_group(str(path), mode="r+").attrs["omero"] = {"channels": None}
    assert open_image(path).pixel_um == 0.065


def test_the_finest_level_is_read_wherever_it_stands(tmp_path: Path) -> None:
    """ome/ngff#151, ome-zarr-models/ome-zarr-models-py#72."""
    path = ngff(tmp_path)
    root = zarr.open_group(str(path), mode="r+")
    root.create_array("1", shape=(24, 20), dtype="u2", chunks=(16, 16))[...] = COUNTS[::2, ::2]
    coarse = {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [0.13, 0.13]}]}
    (said,) = root.attrs["multiscales"]
    root.attrs["multiscales"] = [{**said, "datasets": [coarse, *said["datasets"]]}]
    image = open_image(path)
    assert image.pixel_um == 0.065
    np.testing.assert_array_equal(np.asarray(image.array), COUNTS)


@pytest.mark.parametrize("stated", [None, "/"])
def test_chunks_are_found_whatever_separates_their_names(
    tmp_path: Path, stated: str | None
) -> None:
    """ome/napari-ome-zarr#39, ome/ome-zarr-py#201, ome/ome-zarr-py#343."""
    path = ngff(tmp_path)
    head = path / "0" / ".zarray"
    said = json.loads(head.read_text())
    if stated is None:  # nested, and nothing says so
        for chunk in sorted((path / "0").glob("[0-9]*.*")):
            if chunk.name != head.name:
                target = path / "0" / chunk.name.replace(".", "/")
                target.parent.mkdir(exist_ok=True)
                chunk.rename(target)
        del said["dimension_separator"]
    head.write_text(json.dumps({**said, **({"dimension_separator": stated} if stated else {})}))
    image = open_image(path)
    np.testing.assert_array_equal(np.asarray(image.array), COUNTS)
    assert "its chunks are named with" in image.warnings[0]


def test_a_folder_that_is_no_image_says_what_to_try(tmp_path: Path) -> None:
    """ScrollPrize/villa#1758, napari/napari#1406, fideus-labs/ngff-zarr#346."""
    stack = ImageStack(array=COUNTS, axes="YX", pixel_um=0.1)
    outer = tmp_path / "outer.ome.zarr"
    outer.mkdir()
    inner = ngff_image(outer / "inner.ome.zarr", stack, "0.4")
    with pytest.raises(ImageFileError, match=r"for example .*inner\.ome\.zarr\.$"):
        open_image(outer)
    (inner / ".zgroup").unlink()
    with pytest.raises(ImageFileError, match=r"lacks the file \.zgroup"):
        open_image(inner)
    bare = zarr.open_group(str(tmp_path / "bare.zarr"), mode="w", zarr_format=2)
    bare.create_array("0", shape=(48, 40), dtype="u2", chunks=(16, 16))[...] = COUNTS
    for path in (tmp_path / "bare.zarr", tmp_path / "bare.zarr" / "0"):
        with pytest.raises(ImageFileError, match="needs 'multiscales'"):
            open_image(path)


class WithoutSizes:
    """A file of a maker whose metadata cannot be read."""

    data = STACK[None, None]
    shape, dtype = data.shape, data.dtype
    dims = type("Dims", (), {"order": "TCZYX"})
    scenes = ("one",)

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def physical_pixel_sizes(self) -> Any:
        """As of bioio."""
        raise KeyError("ImageTextInfo")


def test_a_makers_file_without_metadata_keeps_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jimrybarski/nd2reader#61, girder/large_image#608."""
    monkeypatch.setattr(vendor, "CONFINED", False)
    module = ModuleType("bioio")
    module.__dict__.update(BioImage=WithoutSizes)
    monkeypatch.setitem(sys.modules, "bioio", module)
    (tmp_path / "a.nd2").write_bytes(b"something")
    image = read_image(tmp_path / "a.nd2")
    assert (image.axes, image.pixel_um) == ("ZYX", None)
    np.testing.assert_array_equal(image.array, STACK)
