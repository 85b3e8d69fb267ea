"""TIFF files as programs of microscope makers write them, with private tags that tifffile reads."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TIFF

SHORT, LONG, RATIONAL, BYTE, ASCII = 3, 4, 5, 1, 2
Tags = Mapping[int, tuple[int, int, bytes]]  # code: type, count, value
_UNIT_BYTES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8}


def write_pages(path: Path, pages: Sequence[tuple[np.ndarray, Tags]], before: bytes = b"") -> Path:
    """A little-endian TIFF of uint16 pages; `before` lies at byte 8.

    Planes of a page of three dimensions lie one behind the other, and its header names the first.
    The count of a tag may be another than that of its bytes.
    """
    content, link = bytearray(b"II*\0\0\0\0\0" + before), 4
    for pixels, tags in pages:
        content += bytes(len(content) % 2)
        data = len(content)
        content += pixels.astype("<u2").tobytes()
        rows, columns = pixels.shape[-2:]
        numbers = {256: columns, 257: rows, 273: data, 278: rows, 279: 2 * rows * columns}
        numbers |= {258: 16, 259: 1, 262: 1, 277: 1}
        entries = {code: (LONG, 1, struct.pack("<I", value)) for code, value in numbers.items()}
        table = b""
        for code, (kind, count, value) in sorted({**entries, **tags}.items()):
            content += bytes(len(content) % 2)
            place = value.ljust(4, b"\0")
            if len(value) > 4 or _UNIT_BYTES[kind] * count > 4:
                place, content = struct.pack("<I", len(content)), content + value
            table += struct.pack("<HHI", code, kind, count) + place
        content += bytes(len(content) % 2)
        struct.pack_into("<I", content, link, len(content))
        content += struct.pack("<H", len({**entries, **tags})) + table + bytes(4)
        link = len(content) - 4
    path.write_bytes(content)
    return path


def _fraction(value: float) -> bytes:
    return struct.pack("<2I", round(value * 10_000), 10_000)


def write_metamorph(
    path: Path,
    planes: np.ndarray,
    *,
    distances_um: Sequence[float],
    seconds: Sequence[float],
    waves_nm: Sequence[float],
    pixel_um: float | None = 0.065,
    heights_um: Sequence[float] = (),
) -> Path:
    """A MetaMorph stack: one page whose private tags tell how many planes lie behind it."""
    count = len(planes)
    uic2 = b"".join(
        _fraction(step) + struct.pack("<4I", 2_459_000, round(1000 * time), 2_459_000, 0)
        for step, time in zip(distances_um, seconds, strict=True)
    )
    uic4 = struct.pack("<HI", 3, int(pixel_um is not None))
    if pixel_um is not None:
        uic4 += b"".join(struct.pack("<H", code) + _fraction(pixel_um) for code in (4, 5))
        uic4 += struct.pack("<HI3s", 6, 3, b"um\0")
    if heights_um:
        uic4 += struct.pack("<H", 40) + b"".join(map(_fraction, heights_um))
        uic4 += struct.pack("<H", 41) + struct.pack("<I", 1) * count
    tags = {
        33628: (LONG, 1, struct.pack("<2I", 0, 1)),
        33629: (RATIONAL, count, uic2),
        33630: (RATIONAL, count, b"".join(map(_fraction, waves_nm))),
        33631: (LONG, count, uic4 + bytes(2)),
    }
    return write_pages(path, [(planes, tags)])


def write_zeiss(
    path: Path,
    stack: np.ndarray,
    *,
    voxel_um: tuple[float, float, float] = (0.3, 0.065, 0.065),
    interval_s: float = 0.0,
    names: Sequence[str] = (),
    frames: int | None = None,
) -> Path:
    """A Zeiss LSM file of (P, T, Z, C, Y, X); a preview follows the page of all channels.

    `frames` is the number of times that the header names, if it is another.
    """
    positions, times, depth, channels, rows, columns = stack.shape
    texts = b"".join(struct.pack("<I", len(name) + 1) + name.encode() + b"\0" for name in names)
    size = 24 + 4 * len(names)
    bits = 8 + size + len(texts)  # of two channels, the program writes their place instead
    colours = struct.pack("<6I", size + len(texts), len(names), len(names), 24, size, 0)
    info: Any = np.zeros((), np.dtype(TIFF.CZ_LSMINFO).newbyteorder("<"))
    said = {
        **{"MagicNumber": 67127628, "StructureSize": info.nbytes, "ScanType": 6},
        **{"DimensionX": columns, "DimensionY": rows, "DimensionZ": depth},
        **{"DimensionChannels": channels, "DimensionTime": frames or times},
        "DimensionP": positions if positions > 1 else 0,
        **{f"VoxelSize{letter}": um * 1e-6 for letter, um in zip("ZYX", voxel_um, strict=True)},
        "TimeIntervall": interval_s,
        "OffsetChannelColors": 8 if names else 0,
    }
    for name, value in said.items():
        info[name] = value
    header = {34412: (BYTE, info.nbytes, info.tobytes())}
    pages: list[tuple[np.ndarray, Tags]] = []
    before = colours + bytes(size - 24) + texts + struct.pack("<2H", 16, 16)
    place = 8 + len(before) + len(before) % 2
    sixteen = struct.pack("<I", bits) if channels == 2 else struct.pack("<H", 16) * channels
    for number, planes in enumerate(stack.reshape(-1, channels, rows, columns)):
        starts = [place + 2 * rows * columns * channel for channel in range(channels)]
        strips = {
            258: (SHORT, channels, sixteen),
            273: (LONG, channels, struct.pack(f"<{channels}I", *starts)),
            277: (SHORT, 1, struct.pack("<H", channels)),
            279: (LONG, channels, struct.pack("<I", 2 * rows * columns) * channels),
            284: (SHORT, 1, struct.pack("<H", 2)),
        }
        pages.append((planes, {**strips, **(header if number == 0 else {})}))
        pages.append((planes[0, :4, :4], {254: (LONG, 1, struct.pack("<I", 1))}))
        # Where the next page begins is known when these two are written.
        place = write_pages(path, pages, before).stat().st_size
    return path


def write_fluoview(
    path: Path, stack: np.ndarray, sizes: Sequence[tuple[str, int, float, str]]
) -> Path:
    """An Olympus FluoView file of (..., Y, X).

    `sizes` has name, length, step and unit of each axis, the fastest first.
    """
    header: Any = np.zeros((), np.dtype(TIFF.MM_HEADER).newbyteorder("<"))
    for number, (name, length, step, unit) in enumerate(sizes):
        header["Dimensions"][number] = (name.encode(), length, 0.0, step, unit.encode())
    tags = {
        34361: (BYTE, header.nbytes, header.tobytes()),
        34362: (BYTE, 8, bytes(8)),
    }
    planes = stack.reshape(-1, *stack.shape[-2:])
    return write_pages(
        path, [(plane, {} if number else tags) for number, plane in enumerate(planes)]
    )


def write_metaseries(path: Path, plane: np.ndarray, pixel_um: float, wave_nm: float) -> Path:
    """One plane of MetaMorph or MetaXpress, described in XML."""
    said = {
        "spatial-calibration-x": ("float", pixel_um),
        "spatial-calibration-y": ("float", pixel_um),
        "spatial-calibration-units": ("string", "um"),
        "wavelength": ("float", wave_nm),
    }
    entries = "".join(
        f'<prop id="{name}" type="{kind}" value="{value}"/>' for name, (kind, value) in said.items()
    )
    text = f"<MetaData><PlaneInfo>{entries}</PlaneInfo></MetaData>".encode() + b"\0"
    tags = {270: (ASCII, len(text), text), 305: (ASCII, 11, b"MetaSeries\0")}
    return write_pages(path, [(plane, tags)])


def write_olympus(path: Path, plane: np.ndarray, pixel_um: float) -> Path:
    """One plane of Olympus cellSens, whose private structure lies at byte 8."""
    general = struct.pack("<10xhdd8xd2x34s32s", -6, pixel_um, pixel_um, 60.0, b"camera", b"").ljust(
        220, b"\0"
    )
    place = 8 + 60 + 8
    head = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 0, 0, 1, 0, 120, b"cells", 1)
    head += struct.pack("<hhI", 1, 1, place)
    before = head + general
    return write_pages(path, [(plane, {33560: (LONG, 1, struct.pack("<I", 8))})], before)
