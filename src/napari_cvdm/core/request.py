"""Frozen requests, validated when they are made.

The names of the fields are also the names of the command-line options, of the fields in the dock
and of the entries in ``provenance.json``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

from napari_cvdm.core.microscope import OpticsError, check_condenser, check_defocus, check_optics

OPTICS = ("pixel_um", "wavelength_um", "medium_index", "na")
# What a file states about light and glass of fluorescence, by the optics that it stands for there.
OF_FLUORESCENCE = {"medium_index": "immersion_index", "wavelength_um": "emission_um"}
OF_FLUORESCENCE_WORDS = {
    "immersion_index": "the index of the immersion, not of the medium about the cells",
    "emission_um": "the wavelength of an emission filter, not of the lamp",
}
AXES = "TCZSPYX"
SMALLEST_REGION_PX = 16
SMALLEST_PSF_PX = 5
SAMPLERS = ("sde-2m", "ode-2m", "ddim", "ancestral")
Sampler = Literal["sde-2m", "ode-2m", "ddim", "ancestral"]
IMAGE_ROLE = re.compile(r"image(?:[2-9]|[1-9]\d+)?")  # "image1" would be a second name of "image"
PRECISIONS = ("fp32", "bf16", "auto")
Precision = Literal["fp32", "bf16", "auto"]
ALIGNMENTS = ("off", "auto")
Align = Literal["off", "auto"]


class RequestError(ValueError):
    """A request that cannot be carried out: what was given, what is allowed, what to try."""


def _check_region(region: tuple[int, int, int, int], image: "ImageStack") -> None:
    height, width = image.array.shape[-2:]
    top, bottom, left, right = region
    inside = 0 <= top and bottom <= height and 0 <= left and right <= width
    if not inside or min(bottom - top, right - left) < SMALLEST_REGION_PX:
        raise RequestError(
            f"region is {' '.join(map(str, region))} (top, bottom, left, right); it must lie "
            f"within 0 {height} 0 {width} "
            f"and be at least {SMALLEST_REGION_PX} px wide and high. Leave it out for the whole "
            "image."
        )


def _check_positions(defocus_um: tuple[float, ...], image: "ImageStack") -> None:
    """Check the positions, and that there is one for each plane of the image."""
    positions = len(check_defocus(defocus_um))
    planes = image.planes
    if planes is not None and planes != positions:
        raise RequestError(
            f"{image.source}: the image has {planes} plane{'' if planes == 1 else 's'}, but "
            f"defocus_um has {positions} positions; give one position for each plane, in their "
            "order."
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageStack:
    """An image with named axes.

    Parameters
    ----------
    array : ndarray, or a lazy array such as dask's
        Pixels, one dimension for each letter of `axes`. Of a lazy array, only the frames that are
        reconstructed are read, one by one.
    axes : str
        Letters among T, C, Z, S (sample), P (defocus plane), Y, X, each at most once, ending in YX.
    pixel_um : float, optional
        Pixel size in the sample [um]. None if the file does not state it. Exactly 1.0 and "pixel"
        count as not stated.
    source : str
        Where the image came from: a file or a layer's name.
    metadata : mapping
        Optics that are stated, by the names of `ReconstructionRequest` (``wavelength_um``, ``na``,
        ``medium_index``). A file states ``emission_um`` and ``immersion_index``. They are the
        wavelength and the index of a fluorescence image, but not the lamp and the medium of planes.
    taken_for_planes : str
        The letter that the file had for what is now axis P; "" if no guess was needed.
    place : mapping
        Position of the image, as far as the file states it: ``z_step_um`` (negative where Z
        falls, if ``z_directed``), ``frame_interval_s``, and ``t_s``, ``z_um``, ``y_um``, ``x_um``
        of the first pixel's centre. ``position`` is the number of the stage position.
    channels : tuple of str
        Names of the channels along C; empty where they have none.
    origins : mapping
        Where the file states a value, or why it does not, by the names of `metadata` and
        ``pixel_um``.
    warnings : tuple of str
        What the reader noticed, one sentence each.
    files : tuple of str
        Every file that was read.
    series : int, optional
        Number of the image in its file, where it was asked for by number.

    Raises
    ------
    RequestError
        Axes that do not fit the array, or an empty array.
    """

    array: np.ndarray = field(repr=False)
    axes: str
    pixel_um: float | None = None
    source: str = "array"
    metadata: Mapping[str, float] = field(default_factory=dict)
    taken_for_planes: str = ""
    place: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    series: int | None = None

    def states(self, name: str) -> float | None:
        """A value of optics as the file states it for its kind of image; None if it does not."""
        if name == "pixel_um":
            return self.pixel_um
        # Of defocused planes, the emission and the immersion say nothing about lamp and medium.
        other = None if self.planes else self.metadata.get(OF_FLUORESCENCE.get(name, ""))
        return self.metadata.get(name, other)

    def origin(self, name: str) -> str:
        """Where the file states a value of optics, or why not; empty where nothing is known."""
        other = OF_FLUORESCENCE.get(name, "")
        if name not in self.metadata and self.planes and other in self.metadata:
            value, what = self.metadata[other], OF_FLUORESCENCE_WORDS[other]
            return f"{self.source} states {value:g}, but that is {what}"
        return self.origins.get(name) or self.origins.get(other, "")

    @property
    def lazy(self) -> bool:
        """Whether the pixels are still somewhere else, to be read when their turn comes."""
        return not isinstance(self.array, np.ndarray)

    @property
    def planes(self) -> int | None:
        """Length of the plane axis P; None without one."""
        return int(self.array.shape[self.axes.index("P")]) if "P" in self.axes else None

    @property
    def loop_axes(self) -> str:
        """Letters of the axes that are looped over: all but P, Y and X."""
        return "".join(axis for axis in self.axes if axis not in "PYX")

    @property
    def loop_shape(self) -> tuple[int, ...]:
        """Sizes of `loop_axes`."""
        return tuple(
            size
            for size, axis in zip(self.array.shape, self.axes, strict=True)
            if axis not in "PYX"
        )

    def frame(self, index: tuple[int, ...]) -> np.ndarray:
        """Pixels of one frame, shape (P, Y, X), P of length 1 where there is no such axis."""
        return np.asarray(self.array[index]).reshape(-1, *self.array.shape[-2:])

    def __post_init__(self) -> None:
        fits = (
            len(self.axes) == self.array.ndim
            and self.axes.endswith("YX")
            and len(set(self.axes)) == len(self.axes)
        )
        if not fits or not set(self.axes) <= set(AXES):
            raise RequestError(
                f"{self.source}: axes {self.axes!r} do not fit an array of shape "
                f"{self.array.shape}; letters of {AXES}, one for each dimension, ending in YX."
            )
        if self.array.size == 0:
            raise RequestError(
                f"{self.source}: the image is empty (shape {self.array.shape}); give an image with "
                "pixels in it."
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredPsf:
    """A point spread function that was measured, of a bead for example.

    Parameters
    ----------
    array : ndarray of shape (Y, X)
        Its focal plane, any unit; the brightest point lies inside.
    pixel_um : float
        Its pixel size in the sample [um].
    source : str
        Where it came from.

    Raises
    ------
    RequestError, OpticsError
        An array without a peak, or with NaN; a pixel size that no microscope has.
    """

    array: np.ndarray = field(repr=False)
    pixel_um: float
    source: str = "array"

    def __post_init__(self) -> None:
        if self.array.ndim != 2 or min(self.array.shape) < SMALLEST_PSF_PX:
            raise RequestError(
                f"{self.source}: a PSF of shape {self.array.shape}; one plane of at least "
                f"{SMALLEST_PSF_PX} x {SMALLEST_PSF_PX} px is needed."
            )
        if not np.isfinite(self.array).all() or not np.ptp(self.array):
            raise RequestError(
                f"{self.source}: the PSF has NaN or infinite pixels, or none that is brighter than "
                "another; give the image of a bead."
            )
        check_optics(pixel_um=self.pixel_um, wavelength_um=None, medium_index=None, na=None)


# Evaluations of sde-2m: the fewest within 2 % of the best CRPS, see
# `python -m paper.evaluations`.
STEPS = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReconstructionRequest:
    """One reconstruction: the image, the model, the optics and how the posterior is sampled.

    Parameters
    ----------
    image : ImageStack
        The measured image. For a phase model it has an axis ``P`` of two or more planes just before
        YX.
    model : str
        Name of a shipped model or path of a checkpoint folder.
    samples : int
        Posterior samples, 1 to 1024. One sample has no spread: variance is zero.
    steps : int
        Network evaluations for each sample, 1 to 1000. The first one is shared by all samples. One
        step is a preview: it gives the regression without the random draws, and all samples are
        alike.
    seed : int
        Chooses the noise; the same seed gives the same bytes on one CPU in one precision.
    sampler : {"sde-2m", "ode-2m", "ddim", "ancestral"}
        Solver of the reverse process.
    device : str
        ``auto``, ``cpu``, ``cuda:0`` or ``mps``.
    precision : {"fp32", "bf16", "auto"}
        Precision of the network's convolutions only. bf16 moves the samples by a few per cent of
        the spread. It is faster on most GPUs and on processors that support it. ``auto`` takes bf16
        where the device (for a job on a cluster, that of the planning process) multiplies bf16
        matrices in hardware. The result records the choice.
    tile : int
        Side of a square tile [px of the input]. It changes memory and time; it changes the pixels
        only by rounding.
    pixel_um, wavelength_um, medium_index, na : float, optional
        Optics. What is None is taken from `image`. OpticsError is raised where a needed one is
        missing.
    defocus_um : tuple of float, optional
        Signed positions of the planes [um], one for each plane of `image`, two or more. Phase
        models only.
    condenser_na : float, optional
        Numerical aperture of the illumination, 0 up to the medium index and at most 1.6. None and 0
        are coherent light. Phase models only.
    background : {"auto", "none"} or ndarray of shape (Y, X) or (P, Y, X)
        ``auto`` estimates the blank-field intensity (phase) or the dark level (fluorescence).
        ``none`` says that it is already divided out (phase) or zero (fluorescence). An array is a
        blank-field (dark-field) image. For fluorescence, ``auto`` subtracts the first percentile,
        which includes any signal that fills the field.
    psf : MeasuredPsf, optional
        Of the microscope (fluorescence). It takes precedence over NA and wavelength.
    align : {"off", "auto"}
        ``auto`` looks for a shift between the outermost planes and reports it; nothing is moved.
        Phase models only.
    schedule_points : int
        Number of times at which the gamma and beta maps are returned, 0 to 1000.
    keep_samples : bool
        Whether every posterior sample is returned.
    region : tuple of int, optional
        (top, bottom, left, right) of the part of the image to reconstruct, in pixels of the input.
        Bottom and right are the first ones outside. Global quantities (background, US-TIE,
        intensity) are still taken from the whole image.

    Raises
    ------
    RequestError, OpticsError
        A value that is not allowed, with what is.
    """

    image: ImageStack
    model: str
    samples: int = 8
    steps: int = STEPS
    seed: int = 0
    sampler: Sampler = "sde-2m"
    device: str = "auto"
    precision: Precision = "fp32"
    tile: int = 512
    pixel_um: float | None = None
    wavelength_um: float | None = None
    defocus_um: tuple[float, ...] | None = None
    medium_index: float | None = None
    na: float | None = None
    condenser_na: float | None = None
    background: Literal["auto", "none"] | np.ndarray = field(default="auto", repr=False)
    psf: MeasuredPsf | None = None
    align: Align = "off"
    schedule_points: int = 0
    keep_samples: bool = False
    region: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name, low, high, advice in (
            ("samples", 1, 1024, "8 is a good start; 16 for reports."),
            ("steps", 1, 1000, f"{STEPS} is a good start for sde-2m."),
            ("tile", 16, 65536, "512 is a good start; smaller needs less memory."),
            ("schedule_points", 0, 1000, "11 shows the schedule well."),
            ("seed", 0, 2**63 - 1, "Any whole number in that range will do."),
        ):
            count = getattr(self, name)
            if not low <= count <= high:
                raise RequestError(f"{name} is {count}; allowed is {low} to {high}. {advice}")
        for name, allowed, advice in (
            ("sampler", SAMPLERS, ""),
            ("precision", PRECISIONS, ""),
            ("align", ALIGNMENTS, " auto looks for a shift between the planes."),
        ):
            word = getattr(self, name)
            if word not in allowed:
                raise RequestError(f"{name} is {word!r}; allowed are {', '.join(allowed)}.{advice}")
        if isinstance(self.background, str) and self.background not in ("auto", "none"):
            raise RequestError(
                f"background is {self.background!r}; allowed are auto, none or an image."
            )
        if self.defocus_um is not None:
            _check_positions(self.defocus_um, self.image)
        if self.region is not None:
            _check_region(self.region, self.image)
        check_optics(**{name: self.known_optics(name) for name in OPTICS})
        if self.condenser_na is not None:
            check_condenser(self.condenser_na, self.known_optics("medium_index"))

    def known_optics(self, name: str) -> float | None:
        """Optics value `name` of the request, or else of the image; None if neither states it."""
        given = getattr(self, name)
        given = self.image.states(name) if given is None else given
        return None if given is None else float(given)

    def with_known_optics(self) -> "ReconstructionRequest":
        """The same with the optics filled in that the image states."""
        return replace(self, **{name: self.known_optics(name) for name in OPTICS})  # type: ignore[arg-type]

    def optics_value(self, name: str) -> float:
        """The optics value `name`, from the request or else from the image.

        OpticsError where neither says it; the message names the option to give.
        """
        given = self.known_optics(name)
        if given is None:
            option = "--" + name.replace("_", "-")
            reason = self.image.origin(name) or f"{self.image.source} does not say it"
            raise OpticsError(f"{name} is not known: {reason}. Give it with {option}.")
        return given

    def plane_positions(self) -> tuple[float, ...]:
        """Signed position of each plane [um]; RequestError, with the option, if not known."""
        if self.defocus_um is None:
            raise RequestError(
                "defocus_um is not known; the position of each plane is needed. "
                "Give them with --defocus-um, for example --defocus-um -1 1."
            )
        return check_defocus(self.defocus_um)


def image_roles(paths: Iterable[str]) -> tuple[str, ...]:
    """Names of the image files among options, in plane order: image, image2, image3 and so on."""
    images = [role for role in paths if IMAGE_ROLE.fullmatch(role)]
    return tuple(sorted(images, key=lambda role: int(role.removeprefix("image") or 1)))


def roles_of_images(count: int) -> tuple[str, ...]:
    """The names of so many image files: image, image2, image3 and so on."""
    return tuple(f"image{number if number > 1 else ''}" for number in range(1, count + 1))


def command_words(request: ReconstructionRequest, paths: Mapping[str, str], out: str) -> list[str]:
    """The command that carries a request out, as words for ``shlex.join``.

    `paths` are files by option: ``image``, and, where present, ``image2``, ``image3``, ...,
    ``background`` and ``psf``. `out` is the folder for the results. Options at their default are
    left out.
    """
    words = ["napari-cvdm", "restore", *(paths[role] for role in image_roles(paths))]
    for entry in fields(request):
        value = getattr(request, entry.name)
        value = paths[entry.name] if isinstance(value, np.ndarray | MeasuredPsf) else value
        if entry.name != "image" and value != entry.default:
            words += ["--" + entry.name.replace("_", "-"), *_words(value)]
    if request.image.series is not None:
        words += ["--series", str(request.image.series)]
    return [*words, "--out", out]


def _words(value: object) -> list[str]:
    # A flag has no value: its name alone means True.
    if isinstance(value, bool):
        return []
    if isinstance(value, tuple):
        return [word for part in value for word in _words(part)]
    # Never an exponent: -1e-05 would be taken for an option.
    return [np.format_float_positional(value, trim="-") if isinstance(value, float) else str(value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """One training run: a TOML recipe, and a folder for checkpoint, log and card.

    `resume` continues from the last checkpoint in `out`.
    """

    recipe: str
    out: str
    resume: bool = False
    device: str = "auto"
