"""Deconvolution with the PSF of the image's own microscope.

Laws of the model, of Richardson-Lucy, and of the input of the network.
"""

from dataclasses import asdict, replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from small_images import phase_request, planes, spots, widefield_request

from napari_cvdm.cli import main
from napari_cvdm.core.microscope import Microscope, OpticsError
from napari_cvdm.core.request import ImageStack, MeasuredPsf, ReconstructionRequest, RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.io import write_image
from napari_cvdm.io.read import read_psf
from napari_cvdm.io.result_folder import read_result_folder
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.physics.camera import CameraNoise, photon_transfer
from napari_cvdm.physics.widefield import (
    WidefieldForwardModel,
    cutoff_period_um,
    estimate_cutoff,
    usual_index,
    widefield_psf,
)
from napari_cvdm.reconstruction.command import command_of, request_of
from napari_cvdm.reconstruction.plan import prepare_frame, resolve
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.simulate.ranges import WidefieldRanges
from napari_cvdm.simulate.scenes import simulate_widefield
from napari_cvdm.tasks import WidefieldX2
from napari_cvdm.tasks.deconvolved import (
    DECONVOLVED_CHANNELS,
    ITERATIONS,
    Deconvolution,
    deconvolve,
    estimate_lens,
    find_lens,
    lens_of_microscope,
    lens_of_psf,
)
from napari_cvdm.training.pool import PatchLocation, fluorescence_field, simulated_fluorescence

OIL = Microscope(pixel_um=0.065, wavelength_um=0.52, medium_index=1.518, na=1.4)
BRIGHT = WidefieldRanges(
    photons=(300, 3000),
    haze=(0, 0.5),
    correlated=0.0,
    field_px=96,
    structures=("reticulum", "microtubules", "actin"),
)


def model_of(shape=(40, 51), dtype=torch.float64):
    """A model on a small frame."""
    psf = torch.from_numpy(lens_of_microscope(OIL, 2).psf).to(dtype)
    return WidefieldForwardModel.on_canvas(psf, shape, 40, 2)


def test_the_adjoint_is_the_adjoint():
    model, rng = model_of(), torch.Generator().manual_seed(0)
    light, counts = (
        torch.randn(shape, generator=rng, dtype=torch.float64)
        for shape in (model.canvas_shape, model.frame_shape)
    )
    forward, backward = (
        float((model.apply(light) * counts).sum()),
        float((light * model.adjoint(counts)).sum()),
    )
    assert forward == pytest.approx(backward, rel=1e-10)


def test_flat_light_gives_the_same_flat_image_and_a_point_keeps_its_flux():
    model = model_of()
    assert torch.allclose(
        model.apply(torch.full(model.canvas_shape, 3.0, dtype=torch.float64)),
        torch.tensor(3.0, dtype=torch.float64),
        rtol=1e-6,
    )
    light = torch.zeros(model.canvas_shape, dtype=torch.float64)
    light[model.margin + 40, model.margin + 51] = 4.0
    assert float(model.apply(light).sum()) == pytest.approx(1.0, abs=0.02)


def test_richardson_lucy_never_explains_the_counts_worse_and_keeps_the_flux():
    """Each step raises the Poisson likelihood (Shepp and Vardi 1982)."""
    model, rng = model_of(dtype=torch.float64), np.random.default_rng(0)
    light = torch.from_numpy(rng.gamma(0.2, 200, model.canvas_shape))
    counts = torch.from_numpy(rng.poisson(model.apply(light).numpy()).astype(float))
    fits = []
    for estimate in islice(deconvolve(counts, model, 0.0), 40):
        expected = model.apply(estimate)
        fits.append(float((counts * expected.log() - expected).sum()))
        assert (estimate >= 0).all()
    assert all(later >= earlier - 1e-9 * abs(earlier) for earlier, later in pairwise(fits))
    assert float(expected.sum()) == pytest.approx(float(counts.sum()), rel=0.01)


def test_read_noise_that_counts_as_light_keeps_a_dark_field_dark():
    noise = np.random.default_rng(0).normal(0, 3, (64, 64))
    problem = Deconvolution.of_frame(
        noise, lens_of_microscope(OIL, 2), CameraNoise(gain=1.0, read_variance=9.0), 100.0, 2
    )
    _, canvas = next(islice(problem.steps(), 29, None))
    assert float(problem.in_frame(canvas).mean()) < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_the_total_of_the_light_stays(seed):
    """Deconvolution returns the light that blur took out of the frame.

    The total is that of the truth, not that of the image.
    """
    pair = simulate_widefield(seed, replace(BRIGHT, field_px=160))
    prepared = WidefieldX2().condition(
        pair.counts[None], "auto", lens_of_microscope(pair.microscope, 2)
    )
    assert float(prepared.initial_estimate.mean()) * prepared.gain == pytest.approx(
        float(pair.truth.mean()), rel=0.02
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_cutoff_of_a_bright_image_is_found_in_its_spectrum(seed):
    pair = simulate_widefield(
        seed,
        replace(
            BRIGHT,
            photons=(3000, 3000),
            haze=(0, 0),
            defocus=(0, 0),
            blur_periods=(0, 0),
            field_px=160,
        ),
    )
    period_px = cutoff_period_um(pair.microscope) / pair.microscope.pixel_um
    assert estimate_cutoff(pair.counts) == pytest.approx(period_px, rel=0.35)


@pytest.mark.parametrize(
    "image", [np.ones((64, 64)), np.random.default_rng(0).normal(size=(64, 64)), np.ones((8, 90))]
)
def test_an_image_without_structure_has_no_cutoff_and_a_usual_lens_is_assumed(image):
    assert estimate_cutoff(image) is None
    assert estimate_lens([image], 2).source == "assumed"


def test_the_lens_is_measured_stated_or_not_known():
    request = widefield_request(spots((40, 40)))
    assert find_lens(resolve(request, WidefieldX2()), 2) is None
    stated = find_lens(resolve(replace(request, na=1.4, wavelength_um=0.52), WidefieldX2()), 2)
    assert stated.source == "stated" and stated.cutoff_px == pytest.approx(
        0.52 / 2.8 / request.optics_value("pixel_um")
    )
    measured = MeasuredPsf(
        array=widefield_psf(replace(OIL, pixel_um=0.04), 61).numpy(), pixel_um=0.04
    )
    assert (
        find_lens(
            resolve(replace(request, na=0.5, wavelength_um=0.52, psf=measured), WidefieldX2()), 2
        ).source
        == "measured"
    )


@pytest.mark.parametrize("pixel_um", [0.03, 0.05])
def test_a_measured_psf_becomes_that_of_the_stated_optics(pixel_um):
    bead = np.roll(widefield_psf(replace(OIL, pixel_um=pixel_um), 81).numpy(), (4, -6), (0, 1))
    found, stated = (
        lens_of_psf(MeasuredPsf(array=1000 * bead + 50, pixel_um=pixel_um), OIL.pixel_um, 2),
        lens_of_microscope(OIL, 2),
    )
    assert found.psf.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(found.psf - stated.psf).max() < 0.05 * stated.psf.max()
    assert found.cutoff_px == pytest.approx(stated.cutoff_px, rel=0.15)


def test_a_noisy_bead_on_a_background_becomes_the_same_lens():
    rng, pixel_um = np.random.default_rng(0), 0.04
    bead = widefield_psf(replace(OIL, pixel_um=pixel_um), 61).numpy()
    noisy = rng.poisson(2000 * bead / bead.max() + 100).astype(float)
    found, stated = (
        lens_of_psf(MeasuredPsf(array=noisy, pixel_um=pixel_um), OIL.pixel_um, 2),
        lens_of_microscope(OIL, 2),
    )
    assert np.abs(found.psf - stated.psf).max() < 0.15 * stated.psf.max()
    assert found.cutoff_px == pytest.approx(stated.cutoff_px, rel=0.15)


def test_an_inverted_bead_is_refused():
    dark = -widefield_psf(replace(OIL, pixel_um=0.04), 41).numpy()
    with pytest.raises(RequestError, match="no peak"):
        lens_of_psf(MeasuredPsf(array=dark, pixel_um=0.04), OIL.pixel_um, 2)


def test_the_focal_plane_of_a_psf_file_is_taken(tmp_path):
    planes = np.stack(
        [widefield_psf(replace(OIL, pixel_um=0.04), 41, z).numpy() for z in (-0.4, 0.0, 0.4)]
    )
    write_image(
        tmp_path / "psf.ome.tif",
        planes.astype(np.float32),
        axes="ZYX",
        pixel_um=0.04,
        unit="counts",
        name="psf",
    )
    np.testing.assert_allclose(read_psf(tmp_path / "psf.ome.tif").array, planes[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("array", "pixel_um", "said"),
    [
        (np.ones((9, 9)), 0.04, "none that is brighter"),
        (np.zeros((3, 9)), 0.04, "at least 5 x 5"),
        (np.eye(9), 40.0, "pixel_um is 40"),
        (np.eye(9) * np.nan, 0.04, "NaN"),
    ],
)
def test_a_psf_that_cannot_be_one_is_refused(array, pixel_um, said):
    with pytest.raises((RequestError, OpticsError), match=said):
        MeasuredPsf(array=array, pixel_um=pixel_um)


def test_a_psf_file_is_used_kept_in_the_provenance_and_named_by_the_command(
    tiny_widefield_model, tmp_path
):
    image, bead = tmp_path / "image.ome.tif", tmp_path / "bead.ome.tif"
    write_image(
        image, spots((40, 36)).array, axes="YX", pixel_um=0.065, unit="counts", name="image"
    )
    write_image(
        bead,
        widefield_psf(replace(OIL, pixel_um=0.04), 41).numpy(),
        axes="YX",
        pixel_um=0.04,
        unit="counts",
        name="bead",
    )
    words = [
        "--model",
        str(tiny_widefield_model),
        "--samples",
        "2",
        "--steps",
        "2",
        "--psf",
        str(bead),
    ]
    assert main(["restore", str(image), "--out", str(tmp_path / "out"), *words]) == 0
    stored = read_result_folder(tmp_path / "out")
    provenance = stored.reconstruction.provenance
    assert provenance.estimated["frames"][0]["optics"] == "measured"
    assert provenance.settings["psf"] == str(bead)
    assert f"--psf {bead}" in finished(command_of(asdict(provenance), stored.files))


def test_no_command_names_a_result_whose_psf_is_gone(tiny_widefield_model, tmp_path):
    image, bead = tmp_path / "image.ome.tif", tmp_path / "bead.ome.tif"
    write_image(
        image, spots((40, 36)).array, axes="YX", pixel_um=0.065, unit="counts", name="image"
    )
    write_image(
        bead,
        widefield_psf(replace(OIL, pixel_um=0.04), 41).numpy(),
        axes="YX",
        pixel_um=0.04,
        unit="counts",
        name="bead",
    )
    settings = {"psf": "image sha256:0, 0.04 um", "model": str(tiny_widefield_model)}
    for files, said in (
        ({"image": str(image)}, "not known"),
        ({"image": str(image), "psf": str(bead)}, "another PSF"),
    ):
        with pytest.raises(RequestError, match=said):
            request_of(settings, files)


def test_a_phase_has_no_use_for_a_psf(tiny_phase_model):
    psf = MeasuredPsf(array=np.eye(9), pixel_um=0.04)
    with pytest.raises(RequestError, match="no use for a measured PSF"):
        finished(
            reconstruct(phase_request(planes((48, 48)), psf=psf), load_checkpoint(tiny_phase_model))
        )


def test_a_psf_without_a_pixel_size_is_refused_in_one_line(tiny_widefield_model, tmp_path, capsys):
    image = tmp_path / "image.ome.tif"
    write_image(
        image, spots((40, 36)).array, axes="YX", pixel_um=0.065, unit="counts", name="image"
    )
    np.save(tmp_path / "bead.npy", np.eye(9))
    words = [
        "--model",
        str(tiny_widefield_model),
        "--psf",
        str(tmp_path / "bead.npy"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["restore", str(image), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pixel size" in said and "bead.npy" in said
    assert not (tmp_path / "out").exists()


def test_without_na_there_is_no_cutoff_and_every_na_has_a_medium():
    with pytest.raises(OpticsError, match="--na"):
        cutoff_period_um(replace(OIL, na=None))
    assert [usual_index(na) for na in (0.5, 1.2, 1.45)] == [1.0, 1.333, 1.515]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_a_turned_field_is_the_field_of_the_turned_image(turns, mirror):
    """Fine pixels that are folded into channels turn among themselves."""
    pair = simulate_widefield(1, replace(BRIGHT, field_px=40))
    place = PatchLocation(top=0, left=0, turns=turns, mirror=mirror)
    task, lens = WidefieldX2(), lens_of_microscope(pair.microscope, 2)
    whole = fluorescence_field(task, pair.counts, pair.truth, lens=lens)
    counts, truth = (
        place.cut(torch.from_numpy(image)[None], 40, factor)[0].numpy()
        for image, factor in ((pair.counts, 1), (pair.truth, 2))
    )
    turned = fluorescence_field(
        task, np.ascontiguousarray(counts), np.ascontiguousarray(truth), lens=lens
    )
    torch.testing.assert_close(
        place.cut_with_fine(whole.channels, 40, whole.fine_channels, 2),
        turned.channels,
        rtol=1e-3,
        atol=2e-3,
    )
    torch.testing.assert_close(
        place.cut(whole.initial_estimate[None], 40, 2)[0],
        turned.initial_estimate,
        rtol=1e-3,
        atol=2e-3,
    )


def test_the_channels_hold_the_deconvolved_images():
    pair = simulate_widefield(2, BRIGHT)
    field = simulated_fluorescence(WidefieldX2(), pair, 2)
    fine = torch.nn.functional.pixel_shuffle(field.channels[-len(DECONVOLVED_CHANNELS) :], 2)
    assert fine.shape == (3, *field.truth.shape)
    torch.testing.assert_close(fine[1], field.initial_estimate)


@pytest.mark.parametrize("noise", [None, CameraNoise(gain=0.01, read_variance=25.0)])
def test_a_part_is_deconvolved_as_the_whole_is_there(noise):
    """`context_px` around a part are enough, also with read noise and a dark half."""
    pair = simulate_widefield(4, replace(BRIGHT, field_px=224))
    counts = pair.counts.astype(float) - np.percentile(pair.counts, 1)
    if noise is not None:
        counts[:, 112:] *= 0.02
    noise, lens, task = (
        noise or photon_transfer(counts, np.ones(counts.shape, bool)),
        lens_of_microscope(pair.microscope, 2),
        WidefieldX2(),
    )
    inner, brightest = slice(72, 152), float(np.percentile(counts, 99.8))
    read = slice(inner.start - task.context_px, inner.stop + task.context_px)
    whole, part = (
        Deconvolution.of_frame(image, lens, noise, brightest, 2)
        for image in (counts, counts[read, read])
    )
    both = zip(whole.steps(), part.steps(), strict=True)
    for (step, wanted), (_, found) in islice(both, max(ITERATIONS)):
        if step not in ITERATIONS:
            continue
        kept, own = (
            slice(2 * (inner.start - start), 2 * (inner.stop - start)) for start in (0, read.start)
        )
        difference = whole.in_frame(wanted)[kept, kept] - part.in_frame(found)[own, own]
        assert float(difference.abs().max()) < 0.01 * brightest


def test_a_region_is_deconvolved_with_its_surroundings_alone(monkeypatch):
    """The networks see the same of a region as of the whole image.

    A large image costs no more than the region.
    """
    pair, sizes = simulate_widefield(4, replace(BRIGHT, field_px=264)), []
    of_frame = Deconvolution.of_frame
    monkeypatch.setattr(
        Deconvolution,
        "of_frame",
        lambda counts, *others: sizes.append(counts.shape) or of_frame(counts, *others),
    )
    image = ImageStack(array=pair.counts, axes="YX", pixel_um=pair.microscope.pixel_um)
    asked = ReconstructionRequest(
        image=image,
        model="widefield-x2",
        na=pair.microscope.na,
        wavelength_um=pair.microscope.wavelength_um,
    )
    whole, part = (
        prepare_frame(pair.counts[None], replace(asked, region=region), WidefieldX2())
        for region in (None, (0, 32, 8, 40))
    )
    assert sizes == [(264, 264), (192, 200)]
    wanted, found = (prepared.within((0, 32, 8, 40), 8) for prepared in (whole, part))
    assert found.channels.shape == wanted.channels.shape
    assert float((found.channels - wanted.channels).abs().max()) < 0.01 * float(
        wanted.channels.abs().max()
    )
    assert float((found.initial_estimate - wanted.initial_estimate).abs().max()) < 0.01 * float(
        wanted.initial_estimate.abs().max()
    )
