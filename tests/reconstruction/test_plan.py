"""A request is resolved once: what a run computes is known before its first frame."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small_images import phase_request, planes, spots, widefield_request
from test_imports import modules_that_name

import napari_cvdm as cvdm
from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import ImageStack, RequestError
from napari_cvdm.core.result import finished
from napari_cvdm.models.checkpoint import load_checkpoint
from napari_cvdm.reconstruction.plan import resolve
from napari_cvdm.tasks import TASKS, defocused_planes, fluorescence, phase
from napari_cvdm.tasks.defocused_planes import SortedPlanes

PHASE, WIDEFIELD = TASKS["phase-2shot"], TASKS["widefield-x2"]
# Who may read a request: those who make it, resolve it, write it as a command or a job.
READERS = ("core/request.py", "reconstruction/", "out_of_core/", "evaluation/", "export/", "live/")
FACES = ("cli/", "widgets/")


def test_below_the_plan_nobody_reads_the_request() -> None:
    named = modules_that_name("napari_cvdm.core.request.ReconstructionRequest")
    assert {name for name in named if not name.startswith((*READERS, *FACES))} == set()
    inside = {name for name in named if name.startswith("reconstruction/")}
    assert inside == {
        f"reconstruction/{name}.py" for name in ("command", "cost", "plan", "reconstruct")
    }


def test_optics_of_the_image_are_filled_in_and_an_option_decides_over_them() -> None:
    image = replace(planes((40, 44)), metadata={"wavelength_um": 0.6, "na": 0.4})
    request = phase_request(image, wavelength_um=None, pixel_um=None)
    plan = resolve(request, PHASE)
    assert (plan.pixel_um, plan.wavelength_um, plan.na) == (0.2, 0.6, 0.4)
    assert plan.settings["wavelength_um"] == 0.6
    assert resolve(replace(request, wavelength_um=0.5), PHASE).wavelength_um == 0.5
    assert resolve(request.with_known_optics(), PHASE).settings == plan.settings


@pytest.mark.parametrize("missing", ["wavelength_um", "medium_index", "defocus_um"])
def test_what_is_missing_is_named_before_a_pixel_is_read(missing: str) -> None:
    class Unreadable:
        shape, ndim, size, dtype = (2, 40, 44), 3, 3520, np.dtype(np.float32)

    image = ImageStack(array=Unreadable(), axes="PYX", pixel_um=0.2)  # type: ignore[arg-type]
    with pytest.raises((OpticsError, RequestError), match=missing):
        resolve(phase_request(image, **{missing: None}), PHASE)


@pytest.mark.usefixtures("few_solver_steps")
@pytest.mark.parametrize("kind", ["phase", "fluorescence"])
def test_background_order_and_noise_are_computed_once_a_frame(
    kind: str, tiny_phase_model, tiny_widefield_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(where: object, name: str) -> None:
        really = getattr(where, name)

        def counted(*given: object, **named: object) -> object:
            calls[name] += 1
            return really(*given, **named)

        monkeypatch.setattr(where, name, counted)

    if kind == "phase":
        for where, name in (
            (defocused_planes, "over_background"),
            (phase, "usable_planes"),
            (phase, "inverse_variance"),
            (defocused_planes, "equalised_levels"),
            (SortedPlanes, "sort"),
        ):
            count(where, name)
        two = np.stack([planes((48, 52), seed).array for seed in (0, 1)])
        request = phase_request(ImageStack(array=two, axes="TPYX", pixel_um=0.2))
        model = load_checkpoint(tiny_phase_model)
    else:
        for name in ("above_dark", "photon_transfer", "noise_sigma", "estimate_lens"):
            count(fluorescence, name)
        two = np.stack([spots((48, 52), seed).array for seed in (0, 1)])
        request = widefield_request(ImageStack(array=two, axes="TYX", pixel_um=0.065))
        model = load_checkpoint(tiny_widefield_model)
    result = finished(cvdm.reconstruct(request, model))
    assert result.forward is not None and result.forward.verdict
    assert set(calls.values()) == {2}, calls
