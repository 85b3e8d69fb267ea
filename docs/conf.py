"""Settings of the documentation: sphinx-build docs SITE."""

import os
import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import napari_cvdm

_root = Path(__file__).parents[1]
_source = _root / "src" / "napari_cvdm"
_metadata = ConfigParser()
_metadata.read(_root / "setup.cfg", encoding="utf-8")

project = _metadata["metadata"]["name"]
author = _metadata["metadata"]["author"]
release = _metadata["metadata"]["version"]
extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
]
exclude_patterns = ["api/modules.rst", "api/napari_cvdm.rst"]
html_theme = "furo"
html_title = f"{project} {release}"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The public names are looked up on first use; automodule documents those that are there.
vars(napari_cvdm).update({name: getattr(napari_cvdm, name) for name in napari_cvdm.__all__})

# The pages of docs/api: every build makes one for each room, from what is there. The options of a
# page of several modules are read from the environment only.
os.environ["SPHINX_APIDOC_OPTIONS"] = "members,show-inheritance,ignore-module-all"
apidoc_modules = [
    {
        "path": str(_source),
        "destination": "api",
        "exclude_patterns": [str(_source / room) for room in ("cli", "widgets")],
    }
]
autodoc_mock_imports = ["bioimageio", "napari", "onnx", "onnxruntime", "qtpy"]
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_param = False  # a numpydoc type is text: "ndarray of shape (Y, X)"
napoleon_use_rtype = False
# What other packages define, what is private here, and variables of a type.
nitpick_ignore_regex = [
    ("py:.*", r"(?!napari_cvdm\b).*|.*\._.*|.*\.(Content|Found|Given|Item|Made|Result)")
]


def _plain(_app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are numpydoc and mathematics: a bar is a bar, a reference an entry of a list."""
    lines[:] = [re.sub(r"^\s*\.\. \[\d+\] ", "* ", line).replace("|", r"\|") for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain)
