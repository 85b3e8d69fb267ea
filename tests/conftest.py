"""What the tests share: tiny models that nobody trained, and where the real images are."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from napari_cvdm.models.checkpoint import ModelCard, config_values, save_checkpoint
from napari_cvdm.models.cvdm import CVDM, CVDMConfig
from napari_cvdm.models.networks import UNetConfig
from napari_cvdm.tasks import TASKS

# How long an example takes depends on the machine, and no law does.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Windows share a screen and its focus: with ``pytest -n`` one process gets all of them."""
    for item in items:
        if item.path.parent.name in ("gui", "widgets"):
            item.add_marker(pytest.mark.xdist_group("windows"))


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
def shared_data() -> Path:
    """The folder of real images; the test is skipped where it is absent."""
    if not DATA.exists():
        pytest.skip(f"the real images are not at {DATA}")
    return DATA
