"""What the user set under Preferences > napari-cvdm, or else the defaults of a request."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from napari_cvdm.core.request import ReconstructionRequest

PLUGIN = "napari-cvdm"
# Name of each preference and the group that the manifest has it in.
PREFERENCES = {
    "device": "computing",
    "precision": "computing",
    "tile": "computing",
    "samples": "sampling",
    "steps": "sampling",
    "show_schedule": "sampling",
    "model_folder": "models",
    "offline": "models",
}
_OWN_DEFAULTS: dict[str, Any] = {"model_folder": "", "offline": False, "show_schedule": False}
# Where a model that was trained here goes, as long as nobody has chosen a folder.
OWN_MODELS = Path("~/napari-cvdm")


def defaults() -> dict[str, Any]:
    """Every preference by name, as it is when nobody has set anything."""
    asked = {entry.name: entry.default for entry in fields(ReconstructionRequest)}
    return {name: asked.get(name, _OWN_DEFAULTS.get(name)) for name in PREFERENCES}


def preferred(name: str) -> Any:
    """A preference by one of the names in `PREFERENCES`.

    Returns
    -------
    str, int or bool
        The default if napari has no preferences of plugins (before 0.9), if the plugin is not
        registered with it, or if the stored value cannot be read.
    """
    group, default = PREFERENCES[name], defaults()[name]
    try:
        from napari.settings import get_plugin_settings

        value = getattr(getattr(get_plugin_settings(PLUGIN), group), name)
    except (ImportError, KeyError, AttributeError, ValueError, OSError):
        return default  # a stored value that the schema forbids is a ValueError
    return value if type(value) is type(default) else default


def own_models() -> Path:
    """The user's folder of models; it may not exist yet."""
    return Path(preferred("model_folder") or OWN_MODELS).expanduser()
