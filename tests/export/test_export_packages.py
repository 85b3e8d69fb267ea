"""Packages of the BioImage Model Zoo, as bioimageio.core and onnxruntime read them.

The tests are skipped without the extra bmz.
"""

import gc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaged_models import PHASE, WIDEFIELD, measured, reconstructed

from napari_cvdm.cli import main
from napari_cvdm.export.sampler import OneStep, OneStepFromCounts, PackageSettings
from napari_cvdm.export.zoo import ExportError, write_bioimageio
from napari_cvdm.io import ImageFileError
from napari_cvdm.io.folders import NOTES
from napari_cvdm.models.checkpoint import load_checkpoint

SAMPLER, ONE_STEP = "posterior-sampler.zip", "one-step-mean.zip"
# bioimageio.spec 0.5.12 leaves files open that it has read.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def files_closed() -> Iterator[None]:
    """Close those files while their warning is not minded."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def core() -> Any:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    return pytest.importorskip("bioimageio.core")


@pytest.fixture(scope="module", params=["phase", "widefield"])
def exported(
    core: Any,
    request: pytest.FixtureRequest,
    tiny_phase_model: Path,
    tiny_widefield_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, Path, PackageSettings]]:
    model, settings = (
        (tiny_phase_model, PHASE) if request.param == "phase" else (tiny_widefield_model, WIDEFIELD)
    )
    out = tmp_path_factory.mktemp(request.param) / "out"
    write_bioimageio(model, out, settings)
    yield out, model, settings


def test_both_packages_pass_the_test_of_the_format(
    core: Any, exported: tuple[Path, Path, PackageSettings]
) -> None:
    out = exported[0]
    assert {path.name for path in out.iterdir()} == {SAMPLER, ONE_STEP, NOTES}
    assert {name: core.test_description(out / name).status for name in (SAMPLER, ONE_STEP)} == {
        SAMPLER: "passed",
        ONE_STEP: "passed",
    }


def test_the_packaged_sampler_gives_what_restore_gives_on_an_image_of_another_size(
    core: Any, exported: tuple[Path, Path, PackageSettings]
) -> None:
    out, model, settings = exported
    image = measured(2 if settings is PHASE else 1)
    expected = reconstructed(model, image, settings)
    outputs = core.predict(model=out / SAMPLER, inputs={"image": image[None]}).members
    for name, values in (("mean", expected.mean), ("std", expected.std)):
        np.testing.assert_allclose(
            outputs[name].data.data[0, 0],
            values,
            rtol=1e-5,
            atol=1e-6 * float(np.abs(values).max()),
        )


def test_onnx_gives_what_torch_gives_for_any_batch_and_size(
    core: Any, exported: tuple[Path, Path, PackageSettings]
) -> None:
    import onnxruntime

    out, model, settings = exported
    checkpoint = load_checkpoint(model)
    rng = np.random.default_rng(3)
    network = (OneStep if settings is PHASE else OneStepFromCounts)(checkpoint.card.config()).eval()
    network.load_state_dict(checkpoint.network.state_dict())
    if settings is PHASE:
        arrays = [
            rng.normal(size=(3, channels, 40, 56))
            for channels in (len(checkpoint.card.channels), 1)
        ]
    else:
        arrays = [rng.poisson(90, (3, 1, 40, 56))]
    tensors = [torch.from_numpy(array.astype(np.float32)) for array in arrays]
    with zipfile.ZipFile(out / ONE_STEP) as archive:
        session = onnxruntime.InferenceSession(archive.read("weights.onnx"))
    (found,) = session.run(
        None,
        {
            entry.name: tensor.numpy()
            for entry, tensor in zip(session.get_inputs(), tensors, strict=True)
        },
    )
    with torch.inference_mode():
        expected = network(*tensors).numpy()
    np.testing.assert_allclose(
        found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max())
    )


def test_the_description_tells_units_licence_citation_and_limits(
    core: Any, exported: tuple[Path, Path, PackageSettings]
) -> None:
    out, model, settings = exported
    card = load_checkpoint(model).card
    for name in (SAMPLER, ONE_STEP):
        described = core.load_model_description(out / name)
        first, mean = described.inputs[0].axes[-1], described.outputs[0].axes[-1]
        finer = 1 if settings is PHASE else 2
        assert (first.unit, first.scale, mean.scale) == (
            "micrometer",
            pytest.approx(settings.pixel_um),
            pytest.approx(settings.pixel_um / finer),
        )
        assert str(described.license) == card.licence
        assert "2312.02246" in str(described.cite[0].url)
        with zipfile.ZipFile(out / name) as archive:
            assert all(limit in archive.read("README.md").decode() for limit in card.limits)


@pytest.mark.parametrize("fault", ["output", "licence"])
def test_a_package_with_a_fault_is_not_let_out(
    core: Any, tiny_widefield_model: Path, tmp_path: Path, fault: str
) -> None:
    from napari_cvdm.export.packages import sampler_package

    package = sampler_package(
        load_checkpoint(tiny_widefield_model), WIDEFIELD, measured(1), "somebody", tmp_path
    )
    if fault == "output":
        wrong = replace(package.outputs[0], values=package.outputs[0].values * 1.05)
        package = replace(package, outputs=(wrong, package.outputs[1]))
    else:
        package = replace(package, card=replace(package.card, licence="as you like"))
    with pytest.raises(
        ExportError, match="did not pass" if fault == "output" else "licence"
    ) as refusal:
        package.write(tmp_path)
    assert "\n" not in str(refusal.value)


def test_missing_optics_are_asked_for_and_nothing_is_left(
    core: Any, tiny_phase_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [
        "export",
        str(tiny_phase_model),
        "--out",
        str(out),
        "--format",
        "bioimageio",
        "--wavelength-um",
        "0.55",
        "--medium-index",
        "1.33",
    ]
    assert main(command) == 2
    assert "--pixel-um" in capsys.readouterr().err
    assert main([*command, "--pixel-um", "0.2"]) == 2
    assert "--defocus-um" in capsys.readouterr().err
    assert not out.exists()


def test_an_older_export_stays_unless_it_is_to_be_replaced(
    exported: tuple[Path, Path, PackageSettings],
) -> None:
    out, model, settings = exported
    before = (out / SAMPLER).read_bytes()
    with pytest.raises(ImageFileError, match="exists already"):
        write_bioimageio(model, out, settings)
    assert (out / SAMPLER).read_bytes() == before
