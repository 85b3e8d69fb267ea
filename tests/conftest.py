"""What the tests share: a screen, tiny models that nobody trained, and the real images."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

from napari_cvdm.checks import phase_check
from napari_cvdm.inversion import background, gauss_newton, posterior, priors
from napari_cvdm.models.checkpoint import ModelCard, config_values, save_checkpoint
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import UNetConfig
from napari_cvdm.tasks import (
    TASKS,
    deconvolved,
    phase,
    phase_blocks,
    phase_inversion,
    phase_posterior,
)

if TYPE_CHECKING:
    from shared_window import SharedWindow

# How long an example takes depends on the machine, and no law does.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")
# A window test waits so long for what must come; none takes that long on a busy machine.
PATIENCE_MS = 600_000
MOST_REMEMBERED = 64  # inversions and draws, of some MB each
COLLECTED_AFTER = (50_000, 20, 50)  # new objects, and collections of the younger ones
Solving = Generator[str, None, Any]
IN_MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
FEW_ROUNDS = ((1.0, 2, 5),)  # of Gauss-Newton: the factor of the noise, rounds, steps in each

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests folders in memory, and each process a screen of its own."""
    work_in_memory()
    start_screen(config)


def work_in_memory() -> None:
    """Make temporary folders in memory: there, nobody waits for a disk to write what is synced.

    Which files are synced, and when, `power_cuts` watches.
    """
    if "TMPDIR" in os.environ or not os.access(IN_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(IN_MEMORY).free > ROOM_BYTES:
        os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = str(IN_MEMORY)
        tempfile.tempdir = None  # pytest has asked for it already


def start_screen(config: pytest.Config) -> None:
    """Start a screen for this process alone, because the windows of a screen share its focus."""
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
    """Leave the imported modules out of garbage collection; they live until the end anyway.

    What comes later is collected rarely: looking through all objects of napari takes a quarter of a
    second. Who asks what is free collects it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


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
def tiny_denoising_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a denoising checkpoint, whose frames need no deconvolution."""
    return tiny_checkpoint("denoise", tmp_path_factory.mktemp("tiny-denoise"))


@pytest.fixture(scope="module")
def inversions() -> dict[tuple[Any, ...], tuple[list[str], Any]]:
    """What `remembered_inversions` remembers."""
    return {}


@pytest.fixture
def remembered_inversions(
    inversions: dict[tuple[Any, ...], tuple[list[str], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invert the same planes once, and draw once: for tests of what comes after, which take 1 s."""

    def remember(key: tuple[Any, ...], steps: Solving) -> Solving:
        if key not in inversions:
            stages = []
            while True:
                try:
                    stages.append(next(steps))
                except StopIteration as end:
                    inversions[key] = stages, end.value
                    if len(inversions) > MOST_REMEMBERED:
                        inversions.pop(next(iter(inversions)))
                    return end.value
                yield stages[-1]
        stages, found = inversions[key]
        yield from stages
        return found

    def remembered(invert: Callable[..., Solving]) -> Callable[..., Solving]:
        def inverted(planes: torch.Tensor, weight: torch.Tensor, *optics: Any) -> Solving:
            pixels = (planes.numpy(force=True).tobytes(), weight.numpy(force=True).tobytes())
            solver = invert.__name__, gauss_newton.ROUNDS, gauss_newton.INNER_STEPS
            defocus_um, *others = optics
            key = (planes.device, planes.shape, *pixels, tuple(defocus_um), *others, *solver)
            return remember(key, invert(planes, weight, *optics))

        return inverted

    def remembered_of_fit(solve: Callable[..., Solving]) -> Callable[..., Solving]:
        def solved(fit: Any, seed: int = 0, streams: Any = (), *first: Any) -> Solving:
            given = (fit, seed, streams, *first) if streams else (fit,)
            key = (solve.__name__, fit, seed, *streams, *first, gauss_newton.ROUNDS)
            return remember(key, solve(*given))

        return solved

    for module, name in (
        (phase, "invert_planes"),
        (phase_blocks, "invert_surrounded"),
        (phase_blocks, "fit_surrounded"),
    ):
        monkeypatch.setattr(module, name, remembered(getattr(module, name)))
    for module, name in (
        (phase_blocks, "flatten_background"),
        (phase_blocks, "fit_local_prior"),
        (phase_posterior, "draw_phases"),
    ):
        monkeypatch.setattr(module, name, remembered_of_fit(getattr(module, name)))


@contextmanager
def few_steps() -> Iterator[None]:
    """Take few steps in every solver: for tests of what is done before and after an inversion.

    A process that is started meanwhile takes all steps.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (deconvolved, "ITERATIONS", (2, 4, 8)),
            (gauss_newton, "continuation", lambda data, weight: FEW_ROUNDS),
            (gauss_newton, "ROUNDS", 1),
            (gauss_newton, "INNER_STEPS", 5),
            (phase_inversion, "FIRST_LOOK", FEW_ROUNDS),
            (phase_inversion, "LAST_ROUNDS", FEW_ROUNDS),
            (posterior, "SOLVE_STEPS", 5),
            (posterior, "log_determinant", partial(posterior.log_determinant, steps=5)),
            (priors, "EM_ROUNDS", 4),
            (background, "COARSE_STEPS", 5),
            (background, "FLAT_STEPS", 5),
            (phase_check, "MOST_STEPS", 5),
        ):
            patch.setattr(module, name, value)
        yield


@pytest.fixture
def few_solver_steps() -> Iterator[None]:
    """Run a test within `few_steps`."""
    with few_steps():
        yield


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
def viewer(request: pytest.FixtureRequest, qtbot: Any) -> Iterator[Any]:
    """A viewer; the window that tests share, if the test is marked `window`."""
    from windowless import Windowless

    from napari_cvdm.widgets.common.worker import Job

    if request.node.get_closest_marker("window") is None:
        viewer = Windowless()
        yield viewer
        viewer.clear()
    else:
        window = request.getfixturevalue("shared_window")
        yield window.open()
        window.clear()
    qtbot.waitUntil(lambda: not Job._running)


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
