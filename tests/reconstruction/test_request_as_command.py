"""A request written as a command, and the command read, are the same request."""

from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_cvdm.cli import options
from napari_cvdm.cli import restore as restoring
from napari_cvdm.core.request import (
    ALIGNMENTS,
    PRECISIONS,
    SAMPLERS,
    ImageStack,
    ReconstructionRequest,
    command_words,
)
from napari_cvdm.models.registry import load_model


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    """A fluorescence image as ImageJ would write it."""
    path = tmp_path / "spots.tif"
    counts = (
        np.random.default_rng(1)
        .poisson(60 + 40 * np.random.default_rng(2).random((40, 44)))
        .astype(np.uint16)
    )
    tifffile.imwrite(
        path, counts, imagej=True, resolution=(1 / 0.065, 1 / 0.065), metadata={"unit": "um"}
    )
    return path


def apart(positions: list[float]) -> tuple[float, ...] | None:
    """Positions that are far enough from each other; None for others."""
    return (
        tuple(positions)
        if all(upper - lower > 2e-3 for lower, upper in pairwise(sorted(positions)))
        else None
    )


optional = {
    "wavelength_um": st.none() | st.floats(0.2, 2.0),
    "medium_index": st.none() | st.floats(1.5, 2.0),
    "na": st.none() | st.floats(0.01, 1.5),
    "defocus_um": st.none()
    | st.lists(st.floats(-250, 250), min_size=2, max_size=6, unique_by=lambda z: round(z, 2))
    .map(apart)
    .filter(bool),
    "condenser_na": st.none() | st.floats(0, 1.5),
    "pixel_um": st.none() | st.floats(0.005, 20),
    "sampler": st.sampled_from(SAMPLERS),
    "precision": st.sampled_from(PRECISIONS),
    "samples": st.integers(1, 1024),
    "seed": st.integers(0, 2**63 - 1),
    "keep_samples": st.booleans(),
    "background": st.sampled_from(["auto", "none"]),
    "align": st.sampled_from(ALIGNMENTS),
    "tile": st.integers(16, 4096),
    "region": st.sampled_from([None, (0, 20, 4, 40)]),
}


@given(chosen=st.fixed_dictionaries(optional))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_as_a_command_is_the_same_request(
    chosen: dict[str, Any], spots: Path, tiny_widefield_model: Path
) -> None:
    request = ReconstructionRequest(
        image=ImageStack(array=np.ones((40, 44)), axes="YX"),
        model=str(tiny_widefield_model),
        **chosen,
    )
    words = command_words(request, {"image": str(spots)}, "out")
    again = restoring.request_of(
        options.build_parser().parse_args(words[1:]), load_model(str(tiny_widefield_model)).card
    )
    assert {
        entry.name: getattr(again, entry.name) for entry in fields(request) if entry.name != "image"
    } == {
        entry.name: getattr(request, entry.name)
        for entry in fields(request)
        if entry.name != "image"
    }
