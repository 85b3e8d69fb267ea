"""Any number of planes on the way from the user to a method, and the light that is not coherent."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from small_images import phase_request

from napari_cvdm.baselines.phase import UsTie, Wotf
from napari_cvdm.cli import main, options
from napari_cvdm.cli.restore import files_of, job_of, request_of
from napari_cvdm.core.microscope import Microscope, OpticsError, check_defocus
from napari_cvdm.core.plan import (
    count_planes,
    one_sided_warning,
    z_step_warning,
)
from napari_cvdm.core.request import (
    ImageStack,
    ReconstructionRequest,
    RequestError,
    command_words,
    image_roles,
)
from napari_cvdm.core.result import finished
from napari_cvdm.io import combine_planes, read_image
from napari_cvdm.io.pairing import ImageEntry
from napari_cvdm.io.result_folder import read_result_folder
from napari_cvdm.live.follow import newest_index
from napari_cvdm.physics.tie import axial_difference
from napari_cvdm.reconstruction.command import command_of
from napari_cvdm.reconstruction.methods import card_of_method, load_method
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.scenes import defocus_pair_of
from napari_cvdm.tasks import TASKS
from napari_cvdm.widgets.reconstruct.file_queue import Batch

MICROSCOPE = Microscope(pixel_um=0.2, wavelength_um=0.55, medium_index=1.33)
OPTICS = ["--wavelength-um", "0.55", "--medium-index", "1.33"]
THREE = (-1.0, 0.0, 1.5)
SHAPE = (48, 40)


def weak_phase(strength_rad: float = 0.1) -> np.ndarray:
    """A few periodic waves [rad] with zero mean."""
    y, x = (2 * np.pi * np.arange(size) / size for size in SHAPE)
    return strength_rad * (
        np.cos(3 * y)[:, None] * np.sin(2 * x) + 0.5 * np.sin(5 * y)[:, None] * np.cos(4 * x)
    )


def intensities(defocus_um: tuple[float, ...], counts: float = 2000.0) -> np.ndarray:
    """Planes without noise, in light of so many counts. A little absorption shows in focus, too."""
    absorbance = 0.02 * weak_phase()[::-1, ::-1]
    return counts * defocus_pair_of(weak_phase(), absorbance, MICROSCOPE, defocus_um).astype(
        np.float64
    )


def write_stack(path: Path, planes: np.ndarray, z_step_um: float | None = None) -> Path:
    """A stack along Z as ImageJ writes it."""
    said = {"unit": "um", "axes": "ZYX"} | ({} if z_step_um is None else {"spacing": z_step_um})
    tifffile.imwrite(
        path, planes.astype(np.float32), imagej=True, resolution=(5.0, 5.0), metadata=said
    )
    return path


def write_planes(folder: Path, planes: np.ndarray) -> list[Path]:
    """One file for each plane."""
    paths = [folder / f"plane{number}.npy" for number in range(len(planes))]
    for path, plane in zip(paths, planes, strict=True):
        np.save(path, plane)
    return paths


def parse(*words: object) -> ReconstructionRequest:
    """The request that a command makes."""
    arguments = options.build_parser().parse_args(["restore", *map(str, words)])
    return request_of(arguments, card_of_method(arguments.model))


def positions(*values: float) -> list[str]:
    return ["--defocus-um", *(f"{value:g}" for value in values)]


def test_positions_are_checked_and_kept_in_their_order() -> None:
    assert check_defocus([2, -1.5, 0]) == (2.0, -1.5, 0.0)
    with pytest.raises(OpticsError, match=r"has 0\.5 and 0\.5005, the same plane twice"):
        check_defocus((0.5, -3, 0.5005))
    with pytest.raises(OpticsError, match="at least two"):
        check_defocus((1.0,))
    with pytest.raises(OpticsError, match="-250 to 250"):
        check_defocus((1.0, 2.0, float("nan")))


def test_every_plane_needs_one_position() -> None:
    image = ImageStack(array=np.ones((3, 20, 20)), axes="PYX", source="cells.tif")
    assert ReconstructionRequest(image=image, model="m", defocus_um=THREE).defocus_um == THREE
    with pytest.raises(
        RequestError, match=r"cells\.tif: the image has 3 planes, but defocus_um has 2 positions"
    ):
        ReconstructionRequest(image=image, model="m", defocus_um=(-1.0, 1.0))


@pytest.mark.parametrize(
    ("axes", "shape", "letter"),
    [
        ("ZYX", (4,), "Z"),
        ("TZYX", (4, 4), "Z"),
        ("TZYX", (2, 4), "Z"),
        ("TSYX", (3, 4), "S"),
        ("TYX", (4,), "T"),
    ],
)
def test_the_axis_with_as_many_planes_as_positions_is_taken(
    axes: str, shape: tuple[int, ...], letter: str
) -> None:
    array = np.random.default_rng(0).random((*shape, 6, 7))
    planes = combine_planes(ImageStack(array=array, axes=axes), count=4)
    assert (planes.taken_for_planes, planes.planes) == (letter, 4)
    np.testing.assert_array_equal(planes.array, np.moveaxis(array, axes.index(letter), -3))


def test_planes_are_counted_by_the_positions_unless_the_task_takes_one() -> None:
    assert [count_planes(2, given) for given in (None, (1.0,), (-1.0, 1.0), THREE)] == [2, 2, 2, 3]
    assert count_planes(1, THREE) == 1


@pytest.mark.parametrize(
    ("axes", "shape", "left"),
    [
        ("TYX", (3, 8, 9), "TYX"),
        ("TYX", (2, 8, 9), "YX"),
        ("TZYX", (3, 3, 8, 9), "ZYX"),
        ("TZYX", (5, 3, 8, 9), "ZYX"),
    ],
)
def test_the_newest_frame_of_three_planes(axes: str, shape: tuple[int, ...], left: str) -> None:
    assert newest_index(shape, axes, 3)[1] == left


def test_three_files_and_one_stack_make_the_same_request(tmp_path: Path) -> None:
    planes = intensities(THREE).astype(np.float32)
    common = [
        "--model",
        "us-tie",
        "--out",
        "out",
        *positions(*THREE),
        *OPTICS,
        "--condenser-na",
        "0.3",
    ]
    several = parse(*write_planes(tmp_path, planes), "--pixel-um", "0.2", *common)
    one = parse(write_stack(tmp_path / "stack.tif", planes), *common)
    np.testing.assert_array_equal(several.image.array, one.image.array)
    assert (
        (several.defocus_um, several.condenser_na)
        == (one.defocus_um, one.condenser_na)
        == (THREE, 0.3)
    )
    assert several.image.source == "plane0.npy + plane1.npy + plane2.npy"


def test_a_job_of_blocks_opens_three_files(tmp_path: Path, tiny_phase_model: Path) -> None:
    paths = write_planes(tmp_path, intensities(THREE))
    words = [
        "--model",
        tiny_phase_model,
        "--out",
        tmp_path / "out.ome.zarr",
        "--pixel-um",
        "0.2",
        *positions(*THREE),
        *OPTICS,
    ]
    arguments = options.build_parser().parse_args(["restore", *map(str, [*paths, *words])])
    job, _ = job_of(arguments, files_of(arguments))
    assert (job.request.image.planes, tuple(job.request.defocus_um or ())) == (3, THREE)


@pytest.mark.parametrize("files", [1, 3])
def test_a_queued_file_holds_as_many_planes_as_there_are_positions(
    tmp_path: Path, files: int
) -> None:
    planes = intensities(THREE)
    paths = (
        write_planes(tmp_path, planes)
        if files == 3
        else [write_stack(tmp_path / "stack.tif", planes)]
    )
    settings = {
        "model": "us-tie",
        "defocus_um": THREE,
        "wavelength_um": 0.55,
        "medium_index": 1.33,
        "pixel_um": 0.2,
    }
    read = finished(
        Batch(settings=settings, task=TASKS["phase-2shot"]).read(ImageEntry(files=tuple(paths)))
    )
    assert read.request.image.planes == 3


def test_images_may_follow_the_positions(tmp_path: Path) -> None:
    paths = write_planes(tmp_path, intensities(THREE))
    request = parse(
        "--defocus-um",
        "-1",
        "0",
        "+1.5e0",
        *paths,
        "--model",
        "us-tie",
        "--out",
        "out",
        *OPTICS,
        "--pixel-um",
        "0.2",
    )
    assert (request.defocus_um, request.image.planes) == (THREE, 3)


def test_a_request_of_three_planes_survives_the_command(tmp_path: Path) -> None:
    paths = write_planes(tmp_path, intensities(THREE))
    files = {
        f"image{number or ''}": str(path) for number, path in zip((0, 2, 3), paths, strict=True)
    }
    image = combine_planes(*map(read_image, paths))
    before = ReconstructionRequest(
        image=image,
        model="wotf",
        defocus_um=THREE,
        condenser_na=0.25,
        pixel_um=0.2,
        wavelength_um=0.55,
        medium_index=1.33,
    )
    words = command_words(before, files, "out")
    assert words[2:5] == list(files.values())
    again = parse(*words[2:])
    assert (again.defocus_um, again.condenser_na, again.image.source) == (THREE, 0.25, image.source)
    np.testing.assert_array_equal(again.image.array, image.array)


def test_the_roles_of_images_stand_in_their_order() -> None:
    assert image_roles(["background", "image10", "image2", "image", "image1", "images"]) == (
        "image",
        "image2",
        "image10",
    )


def test_a_result_of_three_files_tells_them_and_can_be_repeated(tmp_path: Path) -> None:
    paths, out = write_planes(tmp_path, intensities(THREE)), tmp_path / "out"
    common = ["--pixel-um", "0.2", "--condenser-na", "0.2", "--model", "us-tie"]
    assert (
        main(["restore", *map(str, paths), *common, *positions(*THREE), *OPTICS, "--out", str(out)])
        == 0
    )
    record = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert [record["settings"][name] for name in ("image", "image2", "image3")] == [
        record["inputs"][name]["path"] for name in ("image", "image2", "image3")
    ]
    assert (record["settings"]["defocus_um"], record["settings"]["condenser_na"]) == (
        list(THREE),
        0.2,
    )
    stored = read_result_folder(out)
    assert stored.planes_um is None
    assert tuple(stored.files.values()) == tuple(map(str, paths))
    provenance = {
        "settings": stored.reconstruction.provenance.settings,
        "inputs": record["pixels_sha256"],
        "warnings": (),
        "model": record["model"],
    }
    command = shlex.split(finished(command_of(provenance, stored.files)))
    assert parse(*command[2:]).defocus_um == THREE


@pytest.mark.parametrize(
    ("stated", "given", "words"),
    [
        (1.0, THREE, ("1 um", "1.5 um", "-1 0 1.5")),
        (1.0, (1.0, 0.0, -1.0), ()),
        (0.98, (-1.0, 0.0, 1.0), ()),
    ],
)
def test_a_z_step_of_the_file_that_differs_is_said_with_both_numbers(
    tmp_path: Path, stated: float, given: tuple[float, ...], words: tuple[str, ...]
) -> None:
    stack = write_stack(tmp_path / "stack.tif", intensities(given), z_step_um=stated)
    request = parse(stack, "--model", "us-tie", "--out", "out", *positions(*given), *OPTICS)
    said = z_step_warning(request)
    assert len(said) == bool(words)
    assert all(word in said[0] for word in words)
    assert said == tuple(
        warning
        for warning in finished(reconstruct(request, load_method("us-tie"))).provenance.warnings
        if "z step" in warning
    )


def test_a_z_axis_that_is_looped_over_says_nothing_of_the_planes() -> None:
    array = np.random.default_rng(0).random((3, 2, 20, 20))
    image = ImageStack(array=array, axes="ZPYX", place={"z_step_um": 0.3}, taken_for_planes="S")
    request = ReconstructionRequest(image=image, model="m", defocus_um=(-1.0, 1.0))
    assert not one_sided_warning(request) and not z_step_warning(request)


@pytest.mark.parametrize(
    ("given", "warned"),
    [(THREE, False), ((0.0, 1.0, 2.0), False), ((0.5, 1.0, 2.0), True), ((-3.0, -1.0), True)],
)
def test_planes_on_one_side_of_focus_are_warned_of(given: tuple[float, ...], warned: bool) -> None:
    image = ImageStack(array=np.ones((len(given), 20, 20)), axes="PYX")
    said = one_sided_warning(ReconstructionRequest(image=image, model="m", defocus_um=given))
    assert len(said) == warned
    assert all(
        "all planes lie on one side of focus" in warning
        and " ".join(f"{z:g}" for z in given) in warning
        for warning in said
    )


def test_the_slope_of_three_planes_is_that_of_a_line() -> None:
    level, slope = torch.rand(2, 5, 6, dtype=torch.float64)
    planes = torch.stack([level + z * slope for z in THREE])
    torch.testing.assert_close(axial_difference(planes, THREE), slope)
    torch.testing.assert_close(axial_difference(planes[[0, 2]], THREE[::2]), slope)


def test_the_slope_of_two_planes_is_their_difference_to_the_last_bit() -> None:
    planes = torch.rand(2, 5, 6)
    assert torch.equal(
        axial_difference(planes, (-0.7, 1.1)), (planes[1] - planes[0]) / (1.1 - -0.7)
    )


@pytest.mark.parametrize("method", [UsTie(), Wotf(regularisation=1e-9)])
def test_three_planes_without_noise_give_the_phase_that_two_give(method: UsTie | Wotf) -> None:
    truth = weak_phase()
    for defocus_um in ((-1.0, 1.0), (-1.0, 0.0, 1.0), (-1.0, -0.5, 0.5, 1.0)):
        ratio = torch.from_numpy(intensities(defocus_um, 1.0))
        found = finished(method.phase_of(ratio, defocus_um, MICROSCOPE, 0.0)).numpy()
        assert np.abs(found - found.mean() - truth).max() < 0.1 * truth.max(), defocus_um


@pytest.mark.parametrize("name", ["us-tie", "wotf"])
@pytest.mark.parametrize("background", ["auto", "none"])
def test_the_order_of_three_planes_does_not_matter(name: str, background: str) -> None:
    planes, results = intensities(THREE, 1.0), []
    for order in ([0, 1, 2], [2, 0, 1]):
        image = ImageStack(array=planes[order], axes="PYX", pixel_um=0.2)
        request = phase_request(
            image,
            model=name,
            defocus_um=tuple(THREE[place] for place in order),
            background=background,
        )
        results.append(finished(reconstruct(request, load_method(name))))
    np.testing.assert_allclose(results[0].mean, results[1].mean, atol=1e-6)
    assert results[0].provenance.estimated["frames"][0]["background"] == pytest.approx(
        np.roll(results[1].provenance.estimated["frames"][0]["background"], -1)
    )
    truth = weak_phase()
    assert np.corrcoef(results[0].mean.ravel(), truth.ravel())[0, 1] > 0.95


def test_coherent_light_is_recorded_as_such() -> None:
    image = ImageStack(array=intensities((-1.0, 1.0)), axes="PYX", pixel_um=0.2)
    request = phase_request(image, model="us-tie")
    assert (
        finished(reconstruct(request, load_method("us-tie"))).provenance.settings["condenser_na"]
        is None
    )
    assert replace(request, condenser_na=0.0).condenser_na == 0
    with pytest.raises(OpticsError, match=r"condenser_na is 1\.5; allowed is 0 to 1\.33"):
        replace(request, condenser_na=1.5)
