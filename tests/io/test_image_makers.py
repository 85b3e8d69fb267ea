"""Files of microscope makers are read through bioio, here a stand-in.

Where bioio is not installed, the message names the extra.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from napari_cvdm.io import SUFFIXES, ImageFileError, read_image

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
    found = SimpleNamespace(
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
