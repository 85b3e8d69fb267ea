"""Readers of models, bundles, trainings, recipes and result folders."""

import io
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import tomli_w
from hypothesis import strategies as st
from tests.stress.fuzzing import model_specimens as made
from tests.stress.fuzzing.mutations import damaged, json_text

from napari_cvdm.cli.models import description
from napari_cvdm.core.result import finished
from napari_cvdm.io.result_folder import PROVENANCE, is_result_folder, read_result_folder
from napari_cvdm.models.bundle import add_model
from napari_cvdm.models.checkpoint import CARD, WEIGHTS, load_checkpoint, read_card
from napari_cvdm.models.registry import models_in
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.training import pairs
from napari_cvdm.training.recipe import read_recipe
from napari_cvdm.training.state import STATE, load_state

Files = dict[str, bytes]
_NAMES = (
    CARD,
    WEIGHTS,
    "../evil",
    "/tmp/evil",
    "a/../../evil",
    "C:\\evil",
    "\\\\host\\share\\evil",
    "setup.py",
    "card.json/",
    "CARD.JSON",
    "x\x00y",
    "",
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_SYMLINK = 0o120777 << 16


@st.composite
def card_files(draw: st.DrawFn) -> Files:
    """A model whose card says other things."""
    return {**made.model(), CARD: draw(json_text(made.card_values()))}


@st.composite
def network_files(draw: st.DrawFn) -> Files:
    """A model whose card describes another network."""
    card = made.card_values()
    text = draw(json_text(card["network"]))
    return {
        **made.model(),
        CARD: json.dumps({**card, "network": "HERE"}).encode().replace(b'"HERE"', text),
    }


@st.composite
def _safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged(content, ((0, 8), (8, 400))))
    header, data = made.safetensors_parts(content)
    text = draw(json_text(header))
    length = draw(st.sampled_from((len(text), len(text), len(text), 0, 7, 2**31, 2**63 - 1)))
    return length.to_bytes(8, "little") + text + data


@st.composite
def weights_files(draw: st.DrawFn) -> Files:
    """A model with damaged weights."""
    return {**made.model(), WEIGHTS: draw(_safetensors(made.weights()))}


@st.composite
def state_files(draw: st.DrawFn) -> Files:
    """A damaged training state."""
    return {STATE: draw(_safetensors(made.state()))}


@st.composite
def bundle_files(draw: st.DrawFn) -> Files:
    """A zip with other members, other flags, or damaged bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inside in draw(_members()):
            entry = zipfile.ZipInfo("card.json")
            entry.filename = name  # as it is: ZipInfo itself would clean it
            entry.external_attr = draw(st.sampled_from((0, 0, _SYMLINK)))
            entry.compress_type = draw(st.sampled_from(_METHODS))
            archive.writestr(entry, inside)
    written = content.getvalue()
    directory = max(written.rfind(b"PK\x05\x06"), 0)
    hot = ((0, 64), (max(0, directory - 150), len(written)))
    return {"model.zip": draw(damaged(written, hot)) if draw(st.booleans()) else written}


@st.composite
def _members(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    whole = made.model()
    members = [(name, whole[name]) for name in (CARD, WEIGHTS)]
    kind = draw(st.sampled_from(("whole", "card", "weights", "name", "more", "fewer", "bomb")))
    if kind == "card":
        members[0] = (CARD, draw(card_files())[CARD])
    elif kind == "weights":
        members[1] = (WEIGHTS, draw(weights_files())[WEIGHTS])
    elif kind == "name":
        members[0] = (
            CARD,
            json.dumps(
                {
                    **made.card_values(),
                    "name": draw(st.one_of(st.sampled_from(_NAMES), st.text(max_size=8))),
                }
            ).encode(),
        )
    elif kind == "more":
        members.append((draw(st.sampled_from(_NAMES)), b"print('never')"))
    elif kind == "fewer":
        members.pop()
    elif kind == "bomb":
        members[draw(st.integers(0, 1))] = (draw(st.sampled_from((CARD, WEIGHTS))), bytes(3 << 20))
    return members


@st.composite
def result_files(draw: st.DrawFn) -> Files:
    """A result folder with another record, or one damaged, missing or foreign image."""
    files = dict(made.result())
    kind = draw(st.sampled_from(("record", "record", "record", "image", "missing", "swapped")))
    name, other = (draw(st.sampled_from(sorted(set(files) - {PROVENANCE}))) for _ in range(2))
    if kind == "record":
        files[PROVENANCE] = draw(json_text(json.loads(files[PROVENANCE])))
    elif kind == "image":
        files[name] = draw(damaged(files[name]))
    elif kind == "missing":
        files.pop(name)
    else:
        files[name] = files[other]
    return files


@st.composite
def recipe_files(draw: st.DrawFn) -> Files:
    """A recipe with other entries."""
    return {
        "recipe.toml": draw(
            json_text(tomllib.loads(made.RECIPE.read_text(encoding="utf-8")), dumps=_toml)
        )
    }


def _toml(value: Any) -> str:
    return tomli_w.dumps(value) if isinstance(value, dict) else str(value)


def list_models(folder: Path) -> None:
    """What the command line and the dock say of a card, and what they do with the model."""
    read_card(folder)
    for path, card in models_in(folder.parent):
        description(path, card, 1)
    use_model(folder)


def use_model(folder: Path) -> None:
    """Load a model, and reconstruct with it."""
    finished(reconstruct(made.small_request(), load_checkpoint(folder)))


def add_bundle(folder: Path) -> None:
    """Put a bundle among one's models, and use it."""
    use_model(add_model(folder / "model.zip", folder / "mine"))


def read_result(folder: Path) -> None:
    """Read a result folder."""
    is_result_folder(folder)
    read_result_folder(folder)


def go_on(folder: Path) -> None:
    """Read a training's state."""
    load_state(folder, made.FINGERPRINT)


def read_pairs(folder: Path) -> None:
    """Read arrays that a training is given."""
    path = str(next(folder.iterdir()))
    pairs._array.cache_clear()  # it would know the last input under the same name
    for entry in pairs.Arrays(x=path, y=path).entries("phase-2shot"):
        entry.load()


def read_a_recipe(folder: Path) -> None:
    """Read a recipe, and fingerprint it as a training does."""
    recipe = read_recipe(folder / "recipe.toml")
    assert recipe.fingerprint and recipe.data
