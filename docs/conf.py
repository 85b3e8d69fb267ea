"""Settings of the documentation: sphinx-build docs SITE."""

from configparser import ConfigParser
from pathlib import Path

_metadata = ConfigParser()
_metadata.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")

project = _metadata["metadata"]["name"]
author = _metadata["metadata"]["author"]
release = _metadata["metadata"]["version"]
extensions = ["myst_parser", "sphinxarg.ext"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"{project} {release}"
