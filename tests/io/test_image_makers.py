"""Files of microscope makers.

TIFF with private tags is read by tifffile. The others are read through bioio, here a stand-in.
Where it is not installed, the message names the extra.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from maker_tiffs import (
    write_fluoview,
    write_metamorph,
    write_metaseries,
    write_olympus,
    write_pages,
    write_zeiss,
)

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io import SUFFIXES, ImageFileError, read_image, vendor
from napari_cvdm.io.read import open_image

OME = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">\
<Instrument ID="Instrument:0"><Objective ID="Objective:0" LensNA="1.2"/></Instrument>
<Image ID="Image:0"><ObjectiveSettings ID="Objective:0" RefractiveIndex="1.33"/>\
<Pixels><Channel EmissionWavelength="520"/>
<Plane PositionX="3" PositionXUnit="µm" PositionY="4" PositionYUnit="µm"/></Pixels></Image></OME>"""
CZI = """<ImageDocument><Metadata><Information><Instrument>\
<Objectives><Objective><LensNA>1.4</LensNA></Objective></Objectives></Instrument><Image>
<ObjectiveSettings><RefractiveIndex>1.518</RefractiveIndex></ObjectiveSettings><Dimensions><Channels>
<Channel><EmissionWavelength>522.5</EmissionWavelength></Channel>{more}</Channels></Dimensions></Image>\
</Information></Metadata></ImageDocument>"""
ANOTHER_CHANNEL = "<Channel><EmissionWavelength>610</EmissionWavelength></Channel>"


class UnsupportedFileFormatError(Exception):
    """What bioio raises without a plugin for the file."""


@pytest.fixture
def bioio(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for bioio; what it finds in every file can be set."""
    monkeypatch.setattr(vendor, "CONFINED", False)
    found = SimpleNamespace(
        shape=(1, 2, 3, 8, 9),
        dtype=np.uint16,
        data=np.arange(2 * 3 * 8 * 9, dtype=np.uint16).reshape(1, 2, 3, 8, 9),
        dims=SimpleNamespace(order="TCZYX"),
        physical_pixel_sizes=SimpleNamespace(Z=0.3, Y=0.0626, X=0.0626),
        ome_metadata=SimpleNamespace(to_xml=lambda: OME),
        metadata=ElementTree.fromstring(CZI.format(more="")),
    )
    module = ModuleType("bioio")
    module.__dict__.update(BioImage=lambda path: found, found=found)
    monkeypatch.setitem(sys.modules, "bioio", module)
    return module


@pytest.fixture(params=["a.czi", "a.lif", "a.ND2"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something with a maker's ending."""
    path = tmp_path / request.param
    path.write_bytes(b"something")
    return path


def test_makers_files_are_listed_as_readable() -> None:
    assert {".czi", ".lif", ".nd2"} <= set(SUFFIXES)


@pytest.mark.usefixtures("bioio")
def test_pixels_axes_sizes_and_optics_are_read(file: Path) -> None:
    image = read_image(file)
    assert (image.axes, image.array.shape, image.array.dtype, image.pixel_um) == (
        "CZYX",
        (2, 3, 8, 9),
        np.dtype(np.uint16),
        0.0626,
    )
    np.testing.assert_array_equal(image.array.ravel(), np.arange(2 * 3 * 8 * 9))
    zeiss = file.suffix == ".czi"
    assert image.metadata == pytest.approx(
        {"na": 1.4, "immersion_index": 1.518, "emission_um": 0.5225}
        if zeiss
        else dict(na=1.2, immersion_index=1.33, emission_um=0.52)
    )
    assert image.place == (
        {"z_step_um": 0.3} if zeiss else {"z_step_um": 0.3, "y_um": 4.0, "x_um": 3.0}
    )


def test_a_wavelength_of_two_channels_is_not_taken_for_that_of_the_image(
    bioio: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.czi").write_bytes(b"something")
    bioio.found.metadata = ElementTree.fromstring(CZI.format(more=ANOTHER_CHANNEL))
    image = read_image(tmp_path / "a.czi")
    assert set(image.metadata) == {"na", "immersion_index"}
    assert "0.5225, 0.61" in image.origin("wavelength_um")


def test_what_the_file_does_not_say_is_not_known(bioio: Any, file: Path) -> None:
    bioio.found.physical_pixel_sizes = SimpleNamespace(Z=None, Y=1.0, X=1.0)
    bioio.found.ome_metadata = bioio.found.metadata = None
    image = read_image(file)
    assert (image.pixel_um, dict(image.metadata), dict(image.place)) == (None, {}, {})


def test_pixels_that_are_not_square_have_no_size(bioio: Any, file: Path) -> None:
    bioio.found.physical_pixel_sizes = SimpleNamespace(Z=None, Y=0.1, X=0.2)
    image = read_image(file)
    assert image.pixel_um is None and "must be square" in image.origins["pixel_um"]


def test_without_the_extra_its_name_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "CONFINED", False)
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ImageFileError, match=r"napari-cvdm\[bioio\]"):
        read_image(file)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UnsupportedFileFormatError("no"), r"plugin of bioio.*napari-cvdm\[bioio\]"),
        (KeyError("x"), "cannot be read"),
    ],
)
def test_what_bioio_raises_is_told_in_one_line(
    bioio: Any, file: Path, error: Exception, told: str
) -> None:
    def failing(path: Path) -> None:
        raise error

    bioio.BioImage = failing
    with pytest.raises(ImageFileError, match=told) as caught:
        read_image(file)
    assert "\n" not in str(caught.value)


# A module in place of bioio, for a process of its own.
BIOIO = """
import sys
from types import SimpleNamespace

import numpy as np

class BioImage:
    def __init__(self, path):
        assert not {{"torch", "napari", "qtpy"}} & set(sys.modules)
        self.shape, self.dtype, self.dims = {shape}, np.uint16, SimpleNamespace(order="TCZYX")
        self.physical_pixel_sizes = SimpleNamespace(Z=0.3, Y=0.0626, X=0.0626)
        self.ome_metadata = SimpleNamespace(to_xml=lambda: {ome!r})
        {opened}

    @property
    def data(self):
        {read}
        return np.arange(432, dtype=np.uint16).reshape(1, 2, 3, 8, 9)
"""


def put_bioio(folder: Path, monkeypatch: pytest.MonkeyPatch, **parts: str) -> Path:
    """Put a stand-in where the process of a reader finds it; a file that it reads."""
    said = {"shape": "(1, 2, 3, 8, 9)", "ome": OME, "opened": "pass", "read": "pass"}
    (folder / "place").mkdir()
    (folder / "place" / "bioio.py").write_text(BIOIO.format(**{**said, **parts}))
    monkeypatch.syspath_prepend(folder / "place")
    (folder / "a.nd2").write_bytes(b"something")
    return folder / "a.nd2"


LINUX = pytest.mark.skipif(not vendor.CONFINED, reason="only Linux limits the memory of a process")


@LINUX
def test_a_process_of_its_own_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bioio: Any
) -> None:
    path = put_bioio(tmp_path, monkeypatch)
    inside = read_image(path)
    monkeypatch.setattr(vendor, "CONFINED", True)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, inside.array)
    for name in ("axes", "pixel_um", "place", "channels", "metadata", "origins", "files", "source"):
        assert getattr(image, name) == getattr(inside, name)


@LINUX
@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"shape": "(1, 2, 3000, 80000, 90000)", "read": "sys.exit(3)"}, "header promises"),
        ({"opened": "self.filled = bytearray(1 << 33)"}, "takes more memory"),
        ({"read": "self.filled = bytearray(1 << 33)"}, "takes more memory"),
        ({"opened": "import os; os.abort()"}, "reader ended with status -6"),
        ({"opened": "raise KeyError('x')"}, "cannot be read"),
        ({"opened": "import bioio_of_nobody"}, "cannot be read"),
    ],
)
def test_what_a_reader_does_to_its_process_is_told_in_one_line(
    parts: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageFileError, match=told) as caught:
        read_image(put_bioio(tmp_path, monkeypatch, **parts))
    assert "\n" not in str(caught.value)


@LINUX
def test_nothing_of_the_current_folder_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_bioio(tmp_path, monkeypatch)
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert read_image(path).axes == "CZYX"


def test_more_pixels_than_a_file_can_hold_are_not_read(bioio: Any, file: Path) -> None:
    bioio.found.shape = (1, 2, 3000, 80000, 90000)
    with pytest.raises(ImageFileError, match="header promises"):
        read_image(file)


@pytest.mark.skipif(sys.platform == "win32", reason="the writer keeps the file open there")
def test_a_real_czi_file(tmp_path: Path) -> None:
    writer = pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("bioio_czi")
    planes = np.random.default_rng(0).integers(0, 4000, (2, 40, 50)).astype(np.uint16)
    with writer.create_czi(str(tmp_path / "a.czi")) as document:
        for channel, plane in enumerate(planes):
            document.write(data=plane[..., None], plane={"C": channel, "T": 0, "Z": 0})
        document.write_metadata(
            document_name="a",
            channel_names={0: "a", 1: "b"},
            scale_x=62.6e-9,
            scale_y=62.6e-9,
            scale_z=3e-7,
        )
    image = read_image(tmp_path / "a.czi")
    assert (image.axes, image.pixel_um) == ("CYX", pytest.approx(0.0626))
    np.testing.assert_array_equal(image.array, planes)


STACK = np.random.default_rng(0).poisson(90, (2, 2, 3, 2, 20, 24)).astype(np.uint16)
PLANES = STACK[0, 0, :, 0]


def read_twice(path: Path, series: int | None = None) -> ImageStack:
    """An image read whole, which is the same one opened to be read part by part."""
    whole, opened = read_image(path, series=series), open_image(path, series=series)
    np.testing.assert_array_equal(np.asarray(opened.array), whole.array)
    for name in ("axes", "pixel_um", "place", "channels", "metadata", "warnings", "origins"):
        assert getattr(opened, name) == getattr(whole, name)
    return whole


@pytest.mark.parametrize(
    ("distances_um", "seconds", "heights_um", "axes", "place"),
    [
        ([0.3, 0.3, 0.3], [0, 1, 2], (), "ZYX", {"z_step_um": 0.3}),
        ([0, 0.3, 0.3], [0, 1, 2], (), "ZYX", {"z_step_um": 0.3}),
        ([0, 0, 0], [0, 5, 10], (), "TYX", {"frame_interval_s": 5.0}),
        ([0, 0, 0], [0, 5, 10], (9.0, 9.013, 9.008), "TYX", {"frame_interval_s": 5.0}),
        ([0, 0, 0], [0, 1, 2], (9.0, 8.7, 8.4), "ZYX", {"z_step_um": -0.3, "z_directed": 1.0}),
        ([0, 0, 0], [0, 0, 0], (), "SYX", {}),
    ],
)
def test_a_metamorph_stack_is_what_its_planes_differ_in(
    distances_um: list[float],
    seconds: list[float],
    heights_um: tuple[float, ...],
    axes: str,
    place: dict[str, float],
    tmp_path: Path,
) -> None:
    image = read_twice(
        write_metamorph(
            tmp_path / "a.stk",
            PLANES,
            distances_um=distances_um,
            seconds=seconds,
            waves_nm=[525] * 3,
            heights_um=heights_um,
        )
    )
    np.testing.assert_array_equal(image.array, PLANES)
    assert (image.axes, image.pixel_um) == (axes, 0.065)
    assert image.place == pytest.approx(place) and image.metadata == {"emission_um": 0.525}


def test_wavelengths_of_a_metamorph_stack_are_its_channels(tmp_path: Path) -> None:
    none = [0.0, 0.0, 0.0]
    path = tmp_path / "a.stk"
    write_metamorph(
        path, PLANES, distances_um=none, seconds=none, waves_nm=[450, 525, 610], pixel_um=None
    )
    image = read_twice(path)
    assert (image.axes, image.pixel_um, dict(image.metadata)) == ("CYX", None, {})
    assert image.channels == ("450 nm", "525 nm", "610 nm")
    assert "several emission wavelengths" in image.origin("wavelength_um")


def test_one_plane_of_metamorph_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.stk"
    write_metamorph(path, PLANES[:1], distances_um=[0.3], seconds=[0], waves_nm=[525])
    image = read_twice(path)
    np.testing.assert_array_equal(image.array, PLANES[0])
    assert image.axes == "YX" and image.pixel_um == 0.065


def test_metamorph_planes_that_are_not_there_are_missed(tmp_path: Path) -> None:
    path, none = tmp_path / "a.stk", [0.0, 0.0, 0.0]
    write_metamorph(path, PLANES, distances_um=none, seconds=none, waves_nm=none)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags[33629].offset
    content = bytearray(path.read_bytes())
    content[place + 4 : place + 8] = (1_000_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match="MetaMorph tags are damaged"):
        read_image(path)
    write_metamorph(path, PLANES, distances_um=none, seconds=none, waves_nm=none)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ImageFileError, match="cut short"):
        read_image(path)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_zeiss_stack_is_read_without_its_previews(channels: int, tmp_path: Path) -> None:
    stack, names = STACK[:1, :, :, :channels], ["DAPI", "GFP"][:channels]
    image = read_twice(write_zeiss(tmp_path / "a.lsm", stack, interval_s=2.5, names=names))
    np.testing.assert_array_equal(image.array, stack[0] if channels == 2 else stack[0, :, :, 0])
    assert image.axes == ("TZCYX" if channels == 2 else "TZYX")
    assert image.place == pytest.approx({"z_step_um": 0.3, "frame_interval_s": 2.5})
    assert image.pixel_um == pytest.approx(0.065) and image.channels == tuple(names)
    assert not image.warnings


def test_frames_that_a_zeiss_file_promises_and_lacks_are_told(tmp_path: Path) -> None:
    image = read_twice(write_zeiss(tmp_path / "a.lsm", STACK[:1], frames=7))
    np.testing.assert_array_equal(image.array, STACK[0])
    assert "2 of 7 frames along T were written" in image.warnings[0]


def test_positions_of_a_zeiss_file_are_images_and_no_planes(tmp_path: Path) -> None:
    path = write_zeiss(tmp_path / "a.lsm", STACK[:, :1, :1, :1])
    for series in (None, 1, 2):
        image = read_twice(path, series)
        number = (series or 1) - 1
        np.testing.assert_array_equal(image.array, STACK[number, 0, 0, 0])
        assert image.place["position"] == number and bool(image.warnings) == (series is None)
    with pytest.raises(ImageFileError, match="no series 3; there are 1 to 2"):
        read_image(path, series=3)


def test_a_zeiss_header_that_cannot_be_read_costs_no_pixel(tmp_path: Path) -> None:
    path = write_zeiss(tmp_path / "a.lsm", STACK[:1, :1, :, :1])
    content = path.read_bytes()
    path.write_bytes(content.replace((67127628).to_bytes(4, "little"), bytes(4)))
    image = read_twice(path)
    np.testing.assert_array_equal(image.array, PLANES)
    assert image.pixel_um is None and "Zeiss LSM header cannot be read" in image.warnings[0]


def test_a_fluoview_file_has_the_axes_of_its_header(tmp_path: Path) -> None:
    sizes = [("X", 24, 0.1, "um"), ("Y", 20, 0.1, "um"), ("Z", 3, 0.5, "um"), ("Time", 2, 4.0, "s")]
    image = read_twice(write_fluoview(tmp_path / "a.tif", STACK[0, :, :, 0], sizes))
    np.testing.assert_array_equal(image.array, STACK[0, :, :, 0])
    assert (image.axes, image.pixel_um) == ("TZYX", 0.1)
    assert image.place == {"z_step_um": 0.5, "frame_interval_s": 4.0}


def test_pixel_sizes_in_xml_and_in_olympus_structures(tmp_path: Path) -> None:
    xml = read_twice(write_metaseries(tmp_path / "a.tif", PLANES[0], 0.16, 525.0))
    assert (xml.pixel_um, dict(xml.metadata)) == (0.16, {"emission_um": 0.525})
    olympus = read_twice(write_olympus(tmp_path / "b.tif", PLANES[0], 0.16))
    assert olympus.pixel_um == pytest.approx(0.16)
    for image in (xml, olympus):
        np.testing.assert_array_equal(image.array, PLANES[0])


def test_tags_that_nobody_reads_here_are_named(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", [(PLANES[0], {4864: (4, 1, bytes(4))})])
    image = read_twice(path)
    np.testing.assert_array_equal(image.array, PLANES[0])
    assert image.pixel_um is None and "(andor) are not read" in image.warnings[0]


def test_values_of_a_square_root_file_are_read_part_by_part_too(tmp_path: Path) -> None:
    tags = {33445: (4, 1, (2).to_bytes(4, "little")), 33446: (5, 1, b"\3\0\0\0\2\0\0\0")}
    image = read_twice(write_pages(tmp_path / "a.tif", [(PLANES[0], tags)]))
    np.testing.assert_allclose(image.array, 1.5 * PLANES[0].astype(float) ** 2)
