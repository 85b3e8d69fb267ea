"""What the tests share: a screen, tiny models that nobody trained, and the real images."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

from napari_cvdm.models.checkpoint import ModelCard, config_values, save_checkpoint
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import UNetConfig
from napari_cvdm.tasks import TASKS, phase

if TYPE_CHECKING:
    from shared_window import SharedWindow

# How long an example takes depends on the machine, and no law does.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")
# A window test waits so long for what must come; none takes that long on a busy machine.
PATIENCE_MS = 600_000

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Give each process a screen of its own, because the windows of a screen share its focus."""
    worker = "PYTEST_XDIST_WORKER" in os.environ
    with_workers = not worker and config.getoption("numprocesses", None)
    xvfb = shutil.which("Xvfb") if sys.platform.startswith("linux") else None
    if xvfb is None or with_workers or ("DISPLAY" in os.environ and not worker):
        return
    read, write = os.pipe()
    screen = subprocess.Popen(
        [xvfb, "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
        pass_fds=(write,),
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    config.add_cleanup(screen.wait)
    config.add_cleanup(screen.terminate)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    os.environ["DISPLAY"] = f":{number}"
    os.environ.pop("WAYLAND_DISPLAY", None)


def pytest_collection_finish() -> None:
    """Leave the imported modules out of garbage collection; they live until the end anyway."""
    gc.collect()
    gc.freeze()


def tiny_checkpoint(task_name: str, folder: Path, widths: tuple[int, ...] = (8, 16)) -> Path:
    """A checkpoint of a small network with random weights.

    Fresh networks end in zeros and hide mistakes.
    """
    task = TASKS[task_name]
    config = CVDMConfig(
        condition_channels=len(task.channels),
        upsampling=task.upsampling,
        denoiser=UNetConfig(widths=widths, blocks=(1, 1), level_channels=8),
        mean=UNetConfig(widths=widths, blocks=(1, 1), level_channels=0),
    )
    network, generator = CVDM(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.copy_(
                    0.5
                    * torch.randn(parameter.shape, generator=generator)
                    / parameter[0].numel() ** 0.5
                )
    card = ModelCard(
        name=f"tiny-{task_name}",
        title="A tiny model with random weights",
        task=task_name,
        network=config_values(config),
        channels=task.channels,
        inputs=task.inputs,
        unit=task.unit,
        optics={"pixel_um": (0.05, 0.5), "wavelength_um": (0.4, 0.7)},
        intensity="as in use",
        resolution="none",
        licence="BSD-3-Clause",
        training={"simulation": {"strength_rad": (0.05, 6.0)}},
        limits=("Random weights.",),
    )
    save_checkpoint(folder, network, card)
    return folder


@pytest.fixture(scope="session")
def tiny_phase_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a phase checkpoint."""
    return tiny_checkpoint("phase-2shot", tmp_path_factory.mktemp("tiny-phase"))


@pytest.fixture(scope="session")
def tiny_widefield_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a super-resolution checkpoint."""
    return tiny_checkpoint("widefield-x2", tmp_path_factory.mktemp("tiny-widefield"))


@pytest.fixture(scope="session")
def inversions() -> dict[tuple[Any, ...], tuple[list[str], Any]]:
    """What `remembered_inversions` remembers."""
    return {}


@pytest.fixture
def remembered_inversions(
    inversions: dict[tuple[Any, ...], tuple[list[str], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invert the same planes once: for tests of what comes after the inversion, which takes 1 s."""
    really = phase.invert_planes

    def remembered(
        planes: torch.Tensor, weight: torch.Tensor, *optics: Any
    ) -> Generator[str, None, Any]:
        pixels = (planes.numpy(force=True).tobytes(), weight.numpy(force=True).tobytes())
        key = (planes.device, planes.shape, *pixels, *optics)
        if key not in inversions:
            stages, steps = [], really(planes, weight, *optics)
            while True:
                try:
                    stages.append(next(steps))
                except StopIteration as end:
                    inversions[key] = stages, end.value
                    return end.value
                yield stages[-1]
        stages, estimate = inversions[key]
        yield from stages
        return estimate

    monkeypatch.setattr(phase, "invert_planes", remembered)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    if not DATA.exists():
        pytest.skip(f"the real images are not at {DATA}")
    return DATA


@pytest.fixture
def qtbot(qtbot: Any) -> Any:
    """Wait patiently: a machine that is busy is no failure."""
    qtbot.waitUntil = partial(qtbot.waitUntil, timeout=PATIENCE_MS)
    qtbot.waitSignal = partial(qtbot.waitSignal, timeout=PATIENCE_MS)
    return qtbot


@pytest.fixture(scope="session")
def shared_window(qapp: Any) -> "Iterator[SharedWindow]":
    """The window that tests share if they do not ask for one of their own."""
    from shared_window import SharedWindow

    window = SharedWindow()
    yield window
    window.close()


@pytest.fixture
def no_shared_window(shared_window: "SharedWindow") -> None:
    """Close the shared window: napari's own fixture wants to be alone."""
    shared_window.close()


@pytest.fixture
def make_napari_viewer(
    no_shared_window: None, make_napari_viewer: Callable[..., Any]
) -> Callable[..., Any]:
    """Make a window that belongs to one test: one that is shown, or closed by the test."""
    return make_napari_viewer
