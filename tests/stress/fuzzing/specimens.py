"""Valid files, small: what every fuzzing starts from."""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mrcfile
import numpy as np
import tifffile
from tests.stress.fuzzing.mutations import Hot

from napari_cvdm.io import write_image

HEADER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """A valid file.

    Parameters
    ----------
    name : str
        Of the file.
    content : bytes
    hot : tuple of (int, int)
        Where a changed byte changes the file's meaning.
    """

    name: str
    content: bytes = field(repr=False)
    hot: Hot = ()


def pixels(*shape: int) -> np.ndarray:
    """A noisy image of counts, uint16."""
    return np.random.default_rng(len(shape)).poisson(90, shape).astype(np.uint16)


def _tiff(name: str, array: np.ndarray, **settings: object) -> Specimen:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **settings)
    content = stream.getvalue()
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        tags = [(tag.offset, tag.offset + 12) for page in tiff.pages for tag in page.tags]
        values = [
            (tag.valueoffset, tag.valueoffset + tag.valuebytecount)
            for tag in tiff.pages[0].tags
            if tag.valuebytecount > 4
        ]
    return Specimen(name=name, content=content, hot=((0, 8), *tags, *values))


@cache
def tiffs() -> tuple[Specimen, ...]:
    """Plain, tiled, compressed, BigTIFF, ImageJ, OME with four axes, and this program's own."""
    imagej = {"imagej": True, "resolution": (8.0, 8.0), "metadata": {"unit": "um", "spacing": 0.3}}
    ome = {"ome": True, "metadata": {"axes": "TCYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}}
    return (
        _tiff("plain.tif", pixels(24, 20), rowsperstrip=8),
        _tiff("stack.tif", pixels(5, 24, 20)),
        _tiff("tiled.tif", pixels(40, 40), tile=(16, 16)),
        _tiff("deflated.tif", pixels(24, 20), compression="zlib", predictor=True),
        _tiff("zstd.tif", pixels(24, 20), compression="zstd"),
        _tiff("lzw.tif", pixels(24, 20).astype(np.uint8), compression="lzw"),
        _tiff("packbits.tif", pixels(24, 20).astype(np.uint8), compression="packbits"),
        _tiff("lzma.tif", pixels(24, 20), compression="lzma"),
        _tiff("jpeg.tif", pixels(32, 32).astype(np.uint8), compression="jpeg", tile=(16, 16)),
        _tiff("jpeg2000.tif", pixels(32, 32), compression="jpeg2000", tile=(16, 16)),
        _tiff("big.tif", pixels(24, 20), bigtiff=True, byteorder=">"),
        _tiff("imagej.tif", pixels(2, 24, 20), **imagej),
        _tiff("fiji.ome.tif", pixels(2, 2, 24, 20), **ome),
        _tiff("colour.tif", pixels(24, 20, 3).astype(np.uint8), photometric="rgb"),
        written(),
    )


@cache
def written() -> Specimen:
    """An OME-TIFF of this program."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "own.ome.tif"
        write_image(path, pixels(2, 24, 20), axes="PYX", pixel_um=0.2, unit="counts", name="planes")
        with tifffile.TiffFile(path) as tiff:
            hot = tuple(
                (tag.valueoffset, tag.valueoffset + tag.valuebytecount)
                for tag in tiff.pages[0].tags
            )
        return Specimen(name=path.name, content=path.read_bytes(), hot=hot)


@cache
def mrcs() -> tuple[Specimen, ...]:
    """MRC2014 in two types of pixels, and a Priism file of two wavelengths."""
    return (_mrc("image.mrc", np.float32), _mrc("counts.mrc", np.uint16), _priism())


def _mrc(name: str, dtype: type) -> Specimen:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        with mrcfile.new(path) as mrc:
            mrc.set_data(pixels(2, 24, 20).astype(dtype))
            mrc.voxel_size = 650.0
        return Specimen(name=name, content=path.read_bytes(), hot=((0, 224),))


def _priism() -> Specimen:
    header = bytearray(HEADER)
    struct.pack_into("<4i", header, 0, 20, 24, 4, 6)
    struct.pack_into("<3i3f", header, 28, 20, 24, 4, 20 * 0.08, 24 * 0.08, 4 * 0.2)
    struct.pack_into("<h", header, 96, -16224)
    struct.pack_into("<2h", header, 180, 1, 0)
    struct.pack_into("<6h", header, 196, 2, 525, 600, 0, 0, 0)
    return Specimen(
        name="priism.mrc", content=bytes(header) + pixels(4, 24, 20).tobytes(), hot=((0, 224),)
    )


@cache
def npys() -> tuple[Specimen, ...]:
    """Three shapes and types."""
    return tuple(
        _npy(f"array{number}.npy", array)
        for number, array in enumerate(
            (pixels(24, 20), pixels(2, 3, 24, 20) / 7, pixels(24, 20) > 90)
        )
    )


@cache
def npzs() -> tuple[Specimen, ...]:
    """Arrays x and y for training, packed and not."""
    arrays = {"x": pixels(2, 8, 8, 2) / 200, "y": pixels(2, 16, 16, 1) / 200}
    return tuple(
        _npz(f"pairs{number}.npz", save, arrays)
        for number, save in enumerate((np.savez, np.savez_compressed))
    )


def _npz(name: str, save: Callable[..., None], arrays: dict[str, np.ndarray]) -> Specimen:
    stream = io.BytesIO()
    save(stream, **arrays)
    content = stream.getvalue()
    return Specimen(name=name, content=content, hot=((0, 200), (len(content) - 160, len(content))))


def _npy(name: str, array: np.ndarray) -> Specimen:
    stream = io.BytesIO()
    np.save(stream, array)
    return Specimen(name=name, content=stream.getvalue(), hot=((0, 128),))
