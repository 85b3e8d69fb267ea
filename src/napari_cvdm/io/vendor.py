"""Read files of microscope vendors (Nikon, Zeiss, Leica) through the plugins of bioio.

The extra `bioio` installs them. They run in a short-lived process, whose memory the system limits
where it can.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from math import prod
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from mrcfile.mrcfile import MrcFile  # type: ignore[import-untyped]
from mrcfile.mrcinterpreter import MrcInterpreter  # type: ignore[import-untyped]

from napari_cvdm.core.request import ImageStack
from napari_cvdm.io.axes import ordered_axes, usable_dtype
from napari_cvdm.io.errors import ImageFileError, choose_series, one_line
from napari_cvdm.io.limits import check_expansion
from napari_cvdm.io.metadata import (
    NM_PER_UM,
    Stated,
    length_um,
    ome_stated,
    position_um,
    read_ome,
    several_waves,
    square_pixel,
)

SUFFIXES = (".czi", ".lif", ".nd2")
METADATA_BYTES = 1 << 30  # of memory that the metadata of a file may take
_COPIES = 4  # of the pixels, in the memory of their reader
PATIENCE_S = 3600  # of the process that reads a file: a damaged one may never end
# Only Linux holds a process to a limit of its memory.
CONFINED = sys.platform == "linux"
_PROGRAM = "from napari_cvdm.io.vendor import read_in_process; read_in_process()"
# Tags of a CZI file, and how many of their units one of ours is.
_ZEISS_TAGS = {
    "na": ("LensNA", 1.0),
    "immersion_index": ("RefractiveIndex", 1.0),
    "emission_um": ("EmissionWavelength", NM_PER_UM),
}
_INSTALL = "pip install 'napari-cvdm[bioio]', or save the image as OME-TIFF from Fiji"


def read_vendor_file(path: Path, series: int | None = None) -> ImageStack:
    """Read one scene of a vendor's file, the first one unless another is named.

    Scenes are counted from 1. Pixels are as stored; pixel size, Z step and optics are there where
    the file says them.

    Raises ImageFileError where the extra is not installed, the file cannot be read, or has no such
    scene, declares more pixels than it can hold, or has metadata of more than METADATA_BYTES.
    """
    if not CONFINED:
        return _read_scene(path, series)
    command = [sys.executable, "-P", "-c", _PROGRAM, str(path.resolve()), json.dumps(series)]
    # Nothing of a folder that happens to be the current one is imported.
    places = os.pathsep.join(one for one in sys.path if one)
    with TemporaryFile() as pixels:
        try:
            ended = subprocess.run(
                [*command, str(pixels.fileno())],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=[pixels.fileno()],
                env={**os.environ, "PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1"},
                check=False,
                timeout=PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            raise ImageFileError(
                f"{path.name}: was not read within {PATIENCE_S} s, it may be damaged. Copy it "
                "again, or save it as OME-TIFF from Fiji."
            ) from None
        try:
            said = json.loads(ended.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise ImageFileError(
                f"{path.name}: cannot be read, its reader ended with status {ended.returncode}. "
                "Copy it again, or save it as OME-TIFF from Fiji."
            ) from None
        if "error" in said:
            raise ImageFileError(said["error"])
        pixels.seek(0)
        array = np.load(pixels, allow_pickle=False)
    stated = said["stated"]
    # JSON made lists of the tuples.
    stated |= {name: tuple(stated[name]) for name in ("channels", "warnings")}
    return ImageStack(
        array=array,
        axes=said["axes"],
        source=path.name,
        files=(os.path.realpath(path),),
        **Stated(**stated).for_stack(),
    )


def read_in_process() -> None:
    """What the process of a reader does: pixels go to a file, and the rest is printed as JSON."""
    path, series, number = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    try:
        stack = _read_scene(path, series, limit=_limit_memory)
        with os.fdopen(os.dup(number), "wb") as file:
            np.save(file, stack.array, allow_pickle=False)
        names = ("pixel_um", "place", "channels", "origins", "warnings")
        stated = {name: getattr(stack, name) for name in names}
        said = {"axes": stack.axes, "stated": asdict(Stated(optics=stack.metadata, **stated))}
    except ImageFileError as error:
        said = {"error": str(error)}
    except (OSError, MemoryError) as error:
        said = {
            "error": f"{path.name}: its pixels could not be put into {gettempdir()} "
            f"({one_line(error)}). Free space there, or set TMPDIR to another folder."
        }
    print(json.dumps(said))


def _limit_memory(more: int) -> None:
    """Let this process have so many bytes more than it has."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + more
    # A limit of the user's own may be lower, and cannot be raised.
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _read_scene(
    path: Path, series: int | None, limit: Callable[[int], None] = lambda more: None
) -> ImageStack:
    """The same in this process; `limit` is told how many bytes the next step may take."""
    source, suffix = path.name, path.suffix.lower()
    try:
        from bioio import BioImage
    except ImportError as error:
        raise ImageFileError(
            f"{source}: {suffix} files need the extra bioio: {_INSTALL}."
        ) from error
    try:
        with warnings.catch_warnings():
            # The plugins warn about metadata that they cannot translate.
            warnings.simplefilter("ignore")
            limit(METADATA_BYTES)
            image = BioImage(path)
            number, noticed = _choose_scene(image, series, source)
            declared = prod(image.shape) * np.dtype(image.dtype).itemsize
            check_expansion(declared, path.stat().st_size, source)
            # Before the limit rises: metadata are read under that of metadata.
            sizes, stated = _pixel_sizes(image), _said(image, suffix, number, source)
            limit(METADATA_BYTES + _COPIES * declared)
            array, axes = ordered_axes(
                usable_dtype(image.data, source), str(image.dims.order), source
            )
    except ImageFileError:
        raise
    except MemoryError as error:
        raise ImageFileError(
            f"{source}: takes more memory than a sound file of its size does, it may be damaged. "
            "Copy it again, or save it as OME-TIFF from Fiji."
        ) from error
    except Exception as error:  # the plugins let through whatever a damaged file makes happen
        if type(error).__name__ == "UnsupportedFileFormatError":
            raise ImageFileError(
                f"{source}: the plugin of bioio for {suffix} files is not installed: {_INSTALL}."
            ) from error
        raise ImageFileError(
            f"{source}: cannot be read ({one_line(error)}). Copy it again, or save it as OME-TIFF "
            "from Fiji."
        ) from error
    pixel_um, origins = square_pixel(
        length_um(sizes["X"], "um"), length_um(sizes["Y"], "um"), f"the header of {source}"
    )
    step = position_um(sizes["Z"], "um") or 0.0
    stated = replace(
        stated,
        pixel_um=pixel_um,
        place={**stated.place, "z_step_um": step} if step > 0 else stated.place,
        origins={**stated.origins, **origins},
        warnings=noticed,
    )
    return ImageStack(
        array=array, axes=axes, source=source, files=(os.path.realpath(path),), **stated.for_stack()
    )


def _choose_scene(image: Any, series: int | None, source: str) -> tuple[int, tuple[str, ...]]:
    """Go to a scene; its number from 0, and a sentence where there are others."""
    scenes = tuple(getattr(image, "scenes", ())) or ("",)
    number, others = choose_series(scenes, series, source)
    if number:
        image.set_scene(number)
    return number, tuple(f"{source}: {sentence}" for sentence in others)


def _pixel_sizes(image: Any) -> dict[str, float | None]:
    """Sizes along X, Y and Z, None where the metadata are missing or cannot be read."""
    try:
        return {letter: getattr(image.physical_pixel_sizes, letter) for letter in "XYZ"}
    except Exception:  # as of _said: no metadata are worth the pixels
        return dict.fromkeys("XYZ")


def _said(image: Any, suffix: str, number: int, source: str) -> Stated:
    """Optics and place as far as the metadata can be read: a help that the form can do without."""
    try:
        if suffix == ".czi":  # its translation to OME fails on many files
            return zeiss_stated(image.metadata, source)
        root, _ = read_ome(image.ome_metadata.to_xml())
        return Stated() if root is None else ome_stated(root, number, source)
    except Exception:  # what the translations of the vendors' metadata fail with has no end
        return Stated()


def zeiss_stated(metadata: Element, source: str) -> Stated:
    """Optics in the metadata of a CZI file, whose root is ``ImageDocument``.

    Those of ``na``, ``immersion_index`` and ``emission_um`` that are stated, and that are the same
    for all channels.
    """
    said = {
        name: sorted({float(found.text) / unit for found in metadata.iter(tag) if found.text})
        for name, (tag, unit) in _ZEISS_TAGS.items()
    }
    optics = {
        name: values[0] for name, values in said.items() if len(values) == 1 and values[0] > 0
    }
    where = f"the metadata of {source}"
    waves = said["emission_um"]
    unclear = {"emission_um": several_waves(waves)} if len(waves) > 1 else {}
    return Stated(optics=optics, origins={**dict.fromkeys(optics, where), **unclear})


_HEADER_BYTES = 1024
# IMOD's stamp and flags: https://bio3d.colorado.edu/imod/doc/mrc_format.txt
_IMOD_AT, _IMOD_STAMP, _SIGNED_BYTES = slice(152, 160), 1146047817, 1
_EXTENDED_LENGTH_AT = (92, 96)
# Priism has these fields where MRC2014 has other ones:
# https://www.cgl.ucsf.edu/priism/ (IVE image file format).
_PRIISM_MAGIC = -16224
_PRIISM_HEADER = np.dtype(
    {
        "names": ["magic", "times", "sequence", "waves", "wavelengths_nm"],
        "formats": ["i2", "i2", "i2", "i2", "5i2"],
        "offsets": [96, 180, 182, 196, 198],
        "itemsize": 1024,
    }
)
# Slowest first; Priism names these ZTW, WZT and ZWT, with the fastest first.
_SECTION_ORDERS = {0: "CTZ", 1: "TZC", 2: "TCZ"}


def read_mrc(path: Path) -> ImageStack:
    """Read an MRC file.

    It is MRC2014 (voxels in Angstrom) or Priism (voxels in micrometres, no map identifier). Pixels
    are as stored. The pixel size is None where the header has 0 or 1, or other sides along X and Y.
    Priism's emission wavelength is kept where there is one. Raises ImageFileError where the file is
    no MRC, is cut short, or holds complex pixels.
    """
    source = path.name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # permissive reading warns about what is looked at here
            _check_extended_header(path)
            # Not mrcfile.open, which unpacks what is gzip or bzip2 under this name.
            with MrcFile(path, permissive=True) as mrc:
                if mrc.data is None:
                    raise ValueError(
                        "fewer bytes than its header promises, or an unknown pixel type"
                    )
                return _stack(mrc, path)
    except ImageFileError:
        raise
    except Exception as error:  # mrcfile lets through whatever a damaged header makes happen
        raise ImageFileError(
            f"{source}: cannot be read as MRC, it may be cut short ({one_line(error)}). Copy it "
            "again, or save it as TIFF."
        ) from error


def _check_extended_header(path: Path) -> None:
    """Raise ValueError if the extended header is declared to fill the file.

    mrcfile would allocate the memory of both before it reads the file.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    lengths = slice(*_EXTENDED_LENGTH_AT)
    without = head[: lengths.start] + bytes(lengths.stop - lengths.start) + head[lengths.stop :]
    stored = MrcInterpreter(BytesIO(without), permissive=True, header_only=True).header.nsymbt.dtype
    extended = int(np.frombuffer(head[lengths], stored)[0])
    left = path.stat().st_size - _HEADER_BYTES
    if not 0 <= extended < left:
        raise ValueError(
            f"its extended header has {extended} bytes, and the file {left} beside the header"
        )


def _stack(mrc: MrcFile, path: Path) -> ImageStack:
    source = path.name
    priism = bytes(mrc.header.map)[:3] != b"MAP"
    array, axes = np.array(mrc.data), "QZYX"[-mrc.data.ndim :]
    if axes == "ZYX" and not mrc.is_volume():
        axes = "QYX"
    stored = [int(mrc.header[name]) for name in ("maps", "mapr", "mapc")]
    if axes == "ZYX" and sorted(stored) == [1, 2, 3]:
        axes = "".join(" XYZ"[number] for number in stored)
    waves: list[float] = []
    if array.dtype == np.int8 and (priism or _has_imod_bytes(mrc.header)):
        array = array.view(np.uint8)  # their bytes have no sign
    if priism:
        array, axes, waves = _priism_sections(array, axes, mrc.header, source)
    array, axes = ordered_axes(usable_dtype(array, source), axes, source)
    unit = "um" if priism else "angstrom"
    voxel = mrc.voxel_size
    where = f"the header of {source}"
    pixel_um, origins = square_pixel(
        length_um(float(voxel.x), unit), length_um(float(voxel.y), unit), where
    )
    # The voxels of a file that was never calibrated are 0 or 1 along each axis.
    step = position_um(float(voxel.z), unit) if pixel_um and "Z" in axes else None
    metadata = {"emission_um": waves[0]} if len(waves) == 1 else {}
    if waves:
        origins["emission_um"] = where if metadata else several_waves(waves)
    return ImageStack(
        array=array,
        axes=axes,
        pixel_um=pixel_um,
        source=source,
        files=(os.path.realpath(path),),
        metadata=metadata,
        place={"z_step_um": step} if step else {},
        origins=origins,
    )


def _has_imod_bytes(header: np.recarray) -> bool:
    """Whether IMOD wrote the file and does not say that its bytes have a sign."""
    kind = np.dtype("i4").newbyteorder(header.mode.dtype.byteorder)
    stamp, flags = np.frombuffer(header.tobytes()[_IMOD_AT], kind).tolist()
    return bool(stamp == _IMOD_STAMP and not flags & _SIGNED_BYTES)


def _priism_sections(
    array: np.ndarray, axes: str, header: np.recarray, source: str
) -> tuple[np.ndarray, str, list[float]]:
    """Split the sections of a Priism file with a complete header into times, planes and waves.

    Returned are pixels, axes and the stated wavelengths [um]. Raises ImageFileError for an order of
    sections that is not known.
    """
    priism = np.frombuffer(
        header.tobytes(), _PRIISM_HEADER.newbyteorder(header.mode.dtype.byteorder)
    )[0]
    if priism["magic"] != _PRIISM_MAGIC:
        return array, axes, []
    waves, times = (max(int(priism[name]), 1) for name in ("waves", "times"))
    stated = [float(wave) for wave in priism["wavelengths_nm"][:waves]]
    waves_um = sorted({wave / NM_PER_UM for wave in stated}) if min(stated, default=0) > 0 else []
    order = _SECTION_ORDERS.get(int(priism["sequence"]))
    if order is None and (waves > 1 or times > 1):
        raise ImageFileError(
            f"{source}: its sections are in order {int(priism['sequence'])}, which is not known; "
            f"known are {', '.join(map(str, _SECTION_ORDERS))}. Save it as OME-TIFF from Fiji."
        )
    if array.ndim != 3 or array.shape[0] % (waves * times):
        return array, axes, waves_um
    order = order or "CTZ"
    sizes = {"C": waves, "T": times, "Z": array.shape[0] // (waves * times)}
    array = array.reshape(*(sizes[letter] for letter in order), *array.shape[1:])
    return array, order + "YX", waves_um
