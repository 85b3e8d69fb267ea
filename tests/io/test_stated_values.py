"""What is in a file is what is computed.

Stored numbers get their meaning, values of optics their origin, and metadata that are broken cost
no pixel.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from small_images import phase_request, planes, widefield_request
from zarr_results import ngff_image

from napari_cvdm.core.plan import file_warnings, optics_origins
from napari_cvdm.core.request import ImageStack, OpticsError
from napari_cvdm.io import ImageFileError, combine_planes, read_image
from napari_cvdm.io.metadata import length_um, position_um, time_s
from napari_cvdm.io.read import open_image, read_images
from napari_cvdm.io.write import write_image

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
COUNTS = np.arange(16 * 20, dtype=np.uint16).reshape(16, 20) + 1000
PIXELS = (
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="16" SizeC="1" '
    'SizeZ="1" SizeT="2" PhysicalSizeX="0.1" PhysicalSizeY="0.1">'
    '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels>'
)


def ome(data: str = "<TiffData/>", described: str = "") -> str:
    """OME-XML of two frames."""
    text = f"<Description>{described}</Description>" if described else ""
    image = f'<Image ID="Image:0">{text}{PIXELS.format(data=data)}</Image>'
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}">{image}</OME>'


def tif(folder: Path, array: np.ndarray, name: str = "a.tif", **how: Any) -> Path:
    """A TIFF as some program writes it."""
    tifffile.imwrite(folder / name, array, **how)
    return folder / name


@pytest.mark.parametrize("lazily", [False, True])
def test_signed_numbers_of_imagej_are_what_was_measured(tmp_path: Path, lazily: bool) -> None:
    shifted = (COUNTS.astype(np.int32) - 900 + 32768).astype(np.uint16)
    said = {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "gray value"}
    path = tif(tmp_path, shifted, imagej=True, metadata=said)
    image = (open_image if lazily else read_image)(path)
    np.testing.assert_array_equal(np.asarray(image.array), COUNTS.astype(np.int32) - 900)


def test_a_straight_line_is_applied_and_another_function_is_refused(tmp_path: Path) -> None:
    line = tif(tmp_path, COUNTS, imagej=True, metadata={"cf": 0, "c0": 5.0, "c1": 0.25})
    np.testing.assert_allclose(read_image(line).array, 5 + 0.25 * COUNTS)
    curve = tif(tmp_path, COUNTS, imagej=True, metadata={"cf": 4, "c0": 1.0, "c1": 0.25})
    with pytest.raises(ImageFileError, match="calibration function 4"):
        read_image(curve)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_that_is_zero_is_turned_round(tmp_path: Path, bits: int) -> None:
    counts = (COUNTS % 200).astype(f"uint{bits}")
    path = tif(tmp_path, 2**bits - 1 - counts, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).array, counts)


def test_a_rising_table_shows_an_intensity_and_a_palette_does_not(tmp_path: Path) -> None:
    numbers = (COUNTS % 256).astype(np.uint8)
    rising = np.zeros((3, 256), np.uint16)
    rising[1] = np.arange(256) * 257
    path = tif(tmp_path, numbers, photometric="palette", colormap=rising)
    np.testing.assert_array_equal(read_image(path).array, numbers)
    mixed = np.random.default_rng(0).permutation(256).astype(np.uint16) * 257
    path = tif(tmp_path, numbers, photometric="palette", colormap=np.stack([mixed] * 3))
    with pytest.raises(ImageFileError, match="palette"):
        read_image(path)


def test_opacity_is_no_channel_and_equal_colours_are_one(tmp_path: Path) -> None:
    grey = (COUNTS % 256).astype(np.uint8)
    full = np.full_like(grey, 255)
    path = tif(
        tmp_path,
        np.stack([grey, grey, grey, full], axis=-1),
        photometric="rgb",
        extrasamples=["unassalpha"],
    )
    image = read_image(path)
    assert image.axes == "YX" and len(image.warnings) == 2
    np.testing.assert_array_equal(image.array, grey)
    coloured = np.stack([grey, grey // 2, grey, full], axis=-1)
    path = tif(tmp_path, coloured, photometric="rgb", extrasamples=["unassalpha"])
    assert read_image(path).array.shape == (3, 16, 20)


UNITS = {
    **dict.fromkeys(("micron", "Microns", "micrometer", "micrometers", "micrometre"), 1.0),
    **dict.fromkeys(("µm", "μm", "um", "\\u00B5m", "\\u00b5m", "\\u03BCm"), 1.0),
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25400.0, "m": 1e6, "Å": 1e-4, "pm": 1e-6},
}


@pytest.mark.parametrize(("unit", "factor"), UNITS.items())
def test_a_unit_means_the_same_however_it_is_written(unit: str, factor: float) -> None:
    assert length_um(0.065 / factor, unit) == pytest.approx(0.065)
    assert position_um(-0.065 / factor, f" {unit} ") == pytest.approx(-0.065)


@pytest.mark.parametrize("unit", ["", "pixel", "s", "rad", "um**9**9**9", "1", "x" * 99, None])
def test_what_is_no_length_is_not_stated(unit: str | None) -> None:
    assert length_um(0.065, unit) is None


def test_times_have_units_too() -> None:
    found = [time_s(2.0, unit) for unit in ("s", "sec", "min", "ms", "um")]
    assert found == pytest.approx([2.0, 2.0, 120.0, 0.002, None])


BROKEN = {
    "unclosed": ome('<TiffData IFD="0">'),
    "control": ome(described="dish 3\x01"),
    "ampersand": ome(described="DAPI & GFP"),
    "trailing": ome() + "\x01",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_xml_that_is_broken_costs_no_pixel(tmp_path: Path, kind: str) -> None:
    stack = np.stack([COUNTS, COUNTS + 7])
    path = tif(tmp_path, stack, "a.ome.tif", description=BROKEN[kind].encode(), metadata=None)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, stack)
    assert any("a.ome.tif: its OME-XML" in text for text in image.warnings)
    assert image.pixel_um == (None if kind == "unclosed" else pytest.approx(0.1))


def test_a_private_tag_that_cannot_be_read_costs_no_pixel(tmp_path: Path) -> None:
    path = tif(tmp_path, COUNTS, extratags=[(50999, 2, 5, b"abcd\0", True)])
    raw = bytearray(path.read_bytes())
    at = raw.index((50999).to_bytes(2, "little"))
    raw[at + 2 : at + 4] = (31073).to_bytes(2, "little")
    path.write_bytes(bytes(raw))
    image = read_image(path)
    np.testing.assert_array_equal(image.array, COUNTS)
    assert image.warnings == ("a.tif: its private tag 50999 cannot be read.",)


def test_the_typed_value_decides_over_one_that_is_not_square(tmp_path: Path) -> None:
    path = tif(tmp_path, COUNTS, imagej=True, resolution=(10, 20), metadata={"unit": "um"})
    image = read_image(path)
    with pytest.raises(OpticsError, match=r"0\.1 x 0\.05 um"):
        widefield_request(image, pixel_um=None).optics_value("pixel_um")
    (said,) = file_warnings(widefield_request(image, pixel_um=0.1))
    assert "0.1 x 0.05 um" in said and "pixel_um is 0.1" in said


def brightfield(**metadata: float) -> ImageStack:
    """Two planes of a file that states these values."""
    return replace(planes((48, 40)), metadata=metadata, source="cell.ome.tif")


def test_immersion_and_emission_are_those_of_fluorescence_only() -> None:
    stated = {"immersion_index": 1.515, "emission_um": 0.45}
    pair = phase_request(brightfield(**stated), medium_index=None, wavelength_um=None)
    assert pair.known_optics("medium_index") is pair.known_optics("wavelength_um") is None
    with pytest.raises(OpticsError, match="index of the immersion, not of the medium"):
        pair.optics_value("medium_index")
    plane = replace(pair.image, array=pair.image.array[0], axes="YX")
    single = widefield_request(plane, medium_index=None, wavelength_um=None)
    assert (single.known_optics("medium_index"), single.known_optics("wavelength_um")) == (
        1.515,
        0.45,
    )


@pytest.mark.parametrize(("typed", "warned"), [(0.2, False), (0.208, False), (0.1, True)])
def test_a_typed_value_that_differs_from_the_file_is_said_once(typed: float, warned: bool) -> None:
    image = replace(planes((48, 40)), pixel_um=0.2, origins={"pixel_um": "OME-XML of c.tif"})
    request = phase_request(image, pixel_um=typed)
    said = file_warnings(request)
    assert len(said) == warned
    assert all(f"{typed:g}" in text and "0.2" in text and "OME-XML" in text for text in said)
    origin = optics_origins(request.with_known_optics())["pixel_um"]
    assert origin == ("OME-XML of c.tif" if typed == 0.2 else "typed")


def test_equal_pages_are_a_stack_and_a_reduced_page_is_not_the_image(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / "appended.tif", COUNTS + number, append=True)
    assert read_image(tmp_path / "appended.tif").array.shape == (3, 16, 20)
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(COUNTS[::2, ::2], subfiletype=1, metadata=None)
        file.write(COUNTS, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "preview.tif").array, COUNTS)


@pytest.mark.parametrize("lazily", [False, True])
def test_each_of_several_images_is_read_by_its_number(tmp_path: Path, lazily: bool) -> None:
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as file:
        file.write(COUNTS, metadata={"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1})
        file.write(COUNTS + 1, metadata={"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2})
    first = read_image(tmp_path / "two.ome.tif")
    assert "2 (YX 16 x 20)" in first.warnings[0] and first.pixel_um == 0.1
    (second,) = read_images([tmp_path / "two.ome.tif"], 2, lazily=lazily)
    np.testing.assert_array_equal(np.asarray(second.array), COUNTS + 1)
    assert (second.pixel_um, second.series, second.warnings) == (0.2, 2, ())
    with pytest.raises(ImageFileError, match="no series 3"):
        read_image(tmp_path / "two.ome.tif", series=3)


def split_pair(folder: Path) -> list[Path]:
    """Two planes in one file each, of which each names the other."""
    names = ["below.ome.tif", "above.ome.tif"]
    data = "".join(
        f'<TiffData FirstT="{number}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:0000000{number}-0000-0000-0000-000000000000</UUID>'
        "</TiffData>"
        for number, name in enumerate(names)
    )
    for number, name in enumerate(names):
        xml = ome(data).replace(
            "<OME ", f'<OME UUID="urn:uuid:0000000{number}-0000-0000-0000-000000000000" '
        )
        tif(folder, COUNTS + 9 * number, name, description=xml.encode(), metadata=None)
    return [folder / name for name in names]


def test_a_companion_is_read_with_one_file_and_not_with_two(tmp_path: Path) -> None:
    paths = split_pair(tmp_path)
    both = read_image(paths[1])
    np.testing.assert_array_equal(both.array, np.stack([COUNTS, COUNTS + 9]))
    assert {Path(file).name for file in both.files} == {path.name for path in paths}
    pair = combine_planes(*read_images(paths))
    assert pair.axes == "PYX"
    np.testing.assert_array_equal(pair.array, np.stack([COUNTS, COUNTS + 9]))


def test_two_stage_positions_are_never_two_planes() -> None:
    one, other = (
        ImageStack(array=COUNTS + number, axes="YX", place={"position": float(number)})
        for number in range(2)
    )
    with pytest.raises(ImageFileError, match="stage positions"):
        combine_planes(one, other)
    assert combine_planes(one, replace(other, place=one.place)).axes == "PYX"


def test_channels_that_come_last_are_refused_with_the_cure(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((32, 40, 3)))
    with pytest.raises(ImageFileError, match="moveaxis"):
        read_image(tmp_path / "a.npy")


def test_a_plate_and_a_later_version_are_named(tmp_path: Path) -> None:
    stack = ImageStack(array=COUNTS, axes="YX", pixel_um=0.1)
    plate = zarr.open_group(str(tmp_path / "plate.ome.zarr"), mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "B/3"}]}
    well = plate.create_group("B").create_group("3")
    well.attrs["well"] = {"images": [{"path": "0"}]}
    ngff_image(tmp_path / "plate.ome.zarr" / "B" / "3" / "0", stack, "0.4")
    with pytest.raises(ImageFileError, match="plate") as told:
        open_image(tmp_path / "plate.ome.zarr")
    path = str(told.value).rsplit("example ", 1)[1].rstrip(".")
    np.testing.assert_array_equal(np.asarray(open_image(path).array), COUNTS)
    later = zarr.open_group(str(ngff_image(tmp_path / "later.ome.zarr", stack, "0.5")), mode="r+")
    later.attrs["ome"] = {**later.attrs["ome"], "version": "0.9"}
    with pytest.raises(ImageFileError, match=r"OME-Zarr 0\.9"):
        open_image(tmp_path / "later.ome.zarr")


def test_times_names_and_heights_reach_the_file(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((2, 3, 2, 16, 20)).astype(np.float32)
    write_image(
        tmp_path / "a.ome.tif",
        array,
        axes="TCZYX",
        pixel_um=0.1,
        unit="counts",
        name="mean",
        z_step_um=-0.5,
        z_um=10.5,
        t_step_s=5.0,
        channels=("DAPI", "GFP", "mCherry"),
    )
    back = read_image(tmp_path / "a.ome.tif")
    wanted = {"z_step_um": -0.5, "z_um": 10.5, "frame_interval_s": 5.0}
    assert {name: back.place[name] for name in wanted} == wanted
    assert [name.split()[-1] for name in back.channels] == ["DAPI", "GFP", "mCherry"]


def test_a_lost_chunk_is_not_known_and_an_empty_one_is_zero(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(100.0, (96, 112)).astype(np.uint16)
    path = ngff_image(
        tmp_path / "a.ome.zarr", ImageStack(array=counts, axes="YX", pixel_um=0.1), "0.5"
    )
    (path / "0" / "c" / "1" / "0").unlink()
    image = open_image(path)
    pixels = np.asarray(image.array)
    assert np.isnan(pixels[48:, :56]).all() and np.array_equal(pixels[:48], counts[:48])
    assert "1 of 4 chunks" in image.warnings[0]
    sparse = counts * (np.indices(counts.shape)[0] < 48).astype(np.uint16) // 60
    path = ngff_image(
        tmp_path / "b.ome.zarr", ImageStack(array=sparse, axes="YX", pixel_um=0.1), "0.5"
    )
    np.testing.assert_array_equal(np.asarray(open_image(path).array), sparse)


@pytest.mark.parametrize("lazily", [False, True])
def test_pixels_and_size_are_those_of_one_image_of_two_files(tmp_path: Path, lazily: bool) -> None:
    names = ["a.ome.tif", "b.ome.tif"]
    identity = "urn:uuid:0000000{}-0000-0000-0000-000000000000"
    images = "".join(
        f'<Image ID="Image:{n}">'
        + PIXELS.replace('SizeT="2"', 'SizeT="1"')
        .replace('"0.1"', f'"0.{n + 1}"')
        .format(
            data=f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">{identity.format(n)}'
            "</UUID></TiffData>"
        )
        + "</Image>"
        for n, name in enumerate(names)
    )
    for n, name in enumerate(names):
        head = f'<OME xmlns="{NAMESPACE}" UUID="{identity.format(n)}">'
        xml = f'<?xml version="1.0" encoding="UTF-8"?>{head}{images}</OME>'
        tif(tmp_path, COUNTS + n, name, description=xml.encode(), metadata=None)
    (second,) = read_images([tmp_path / "a.ome.tif"], 2, lazily=lazily)
    np.testing.assert_array_equal(np.asarray(second.array), COUNTS + 1)
    assert second.pixel_um == 0.2
    (tmp_path / "a.ome.tif").unlink()
    alone = read_image(tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(alone.array, COUNTS + 1)
    assert alone.pixel_um == 0.2


def test_the_second_of_two_plain_images_has_its_own_size(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for side, pixel in ((16, 0.1), (20, 0.4)):
            file.write(
                np.ones((side, 24), np.uint16),
                resolution=(1e4 / pixel,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    assert read_image(tmp_path / "a.tif", series=2).pixel_um == pytest.approx(0.4, rel=1e-4)


def test_a_fourth_channel_of_counts_is_no_opacity(tmp_path: Path) -> None:
    stack = np.stack([COUNTS, COUNTS + 1, COUNTS + 2, COUNTS + 3], axis=-1)
    path = tif(tmp_path, stack, photometric="rgb", extrasamples=["unassalpha"])
    assert read_image(path).array.shape == (4, 16, 20)


def test_frames_that_imagej_promised_and_nobody_wrote_are_counted(tmp_path: Path) -> None:
    stack = np.stack([COUNTS + number for number in range(5)])
    words = "ImageJ=1.54f\nimages=8\nframes=8\nunit=um\n"
    path = tif(tmp_path, stack, description=words, metadata=None)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, stack)
    assert "5 of 8 frames were written" in image.warnings[0]


@pytest.mark.parametrize(
    "unit", ["um/pixel", "µm/px", "um per pixel", "\\u00B5m/pixel", "microns/px"]
)
def test_a_length_of_one_pixel_is_a_length(unit: str) -> None:
    assert length_um(0.25, unit) == pytest.approx(0.25)
    assert length_um(0.25, f"{unit}/pixel/pixel") is None


@pytest.mark.parametrize("place", ["", "c:{c}/2 z:{z}/3 - "])
def test_labels_of_imagej_name_the_channels_of_the_result(place: str, tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 900, (3, 2, 16, 20)).astype(np.uint16)
    labels = [
        place.format(c=c, z=z) + name for z in (1, 2, 3) for c, name in ((1, "DAPI"), (2, "GFP"))
    ]
    said = {"axes": "ZCYX", "Labels": labels}
    path = tif(tmp_path, stack, imagej=True, metadata=said)
    image = read_image(path)
    assert image.channels == ("DAPI", "GFP") and image.axes == "ZCYX"
    said["Labels"] = [f"file {number}.tif" for number in range(6)]  # nothing common to a channel
    assert read_image(tif(tmp_path, stack, imagej=True, metadata=said)).channels == ()


@pytest.mark.parametrize(
    ("sound", "wrong"),
    [('SizeT="2"', 'SizeT="two"'), ("XYZCT", "XYXCT"), ("XYZCT", "YXZCT"), ("XYZCT", "")],
)
@pytest.mark.parametrize("read", [read_image, open_image])
def test_sizes_and_orders_that_are_none_cost_no_pixel(
    read: Any, sound: str, wrong: str, tmp_path: Path
) -> None:
    frames = np.stack([COUNTS, COUNTS + 1])
    path = tif(tmp_path, frames, description=ome().replace(sound, wrong), metadata=None)
    image = read(path)
    np.testing.assert_array_equal(np.asarray(image.array), frames)
    assert image.pixel_um == 0.1 and "how its pages are ordered" in image.warnings[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_and_alpha_are_the_same_part_by_part(dtype: type, tmp_path: Path) -> None:
    grey = (np.arange(600 * 20) % 250).reshape(600, 20).astype(dtype)
    full, last = np.full_like(grey, 255), grey.copy()
    last[-1, -1] += 1
    for blue, channels in ((grey, 1), (last, 3)):
        samples = np.stack([grey, grey, blue, full], axis=-1)
        path = tif(tmp_path, samples, photometric="rgb", extrasamples=["unassalpha"])
        whole, opened = read_image(path), open_image(path)
        np.testing.assert_array_equal(np.asarray(opened.array), whole.array)
        assert whole.warnings == opened.warnings and whole.array.size == channels * grey.size


def test_a_plate_without_its_wells_is_named_as_one(tmp_path: Path) -> None:
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    for wells in ([], [{"path": "A/1"}]):
        root.attrs["plate"] = {"wells": wells, "version": "0.4"}
        with pytest.raises(ImageFileError, match=f"is a plate that names {len(wells)} wells"):
            open_image(tmp_path / "a.zarr")
