"""What the user set under Preferences > napari-cvdm, and the microscopes that the user saved."""

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from qtpy.QtCore import QStandardPaths

from napari_cvdm.core.microscope import OpticsError
from napari_cvdm.core.request import OPTICS, ImageStack, ReconstructionRequest, RequestError

PLUGIN = "napari-cvdm"
# Name of each preference and the group that the manifest has it in.
PREFERENCES = {
    "device": "computing",
    "precision": "computing",
    "tile": "computing",
    "samples": "sampling",
    "steps": "sampling",
    "show_schedule": "sampling",
    "model": "models",
    "model_folder": "models",
    "offline": "models",
}
_OWN_DEFAULTS: dict[str, Any] = {
    "model": "",
    "model_folder": "",
    "offline": False,
    "show_schedule": False,
}
# Where a model that was trained here goes, as long as nobody has chosen a folder.
OWN_MODELS = Path("~/napari-cvdm")
PRESETS = "microscopes.toml"
PRESET_VALUES = (*OPTICS, "defocus_um", "condenser_na", "photons")
PRESET_HELP = (
    "A microscope that you saved: its pixel size, NA, wavelength and so on.\n"
    "It fills the fields below. What you type there stays. Save… in the menu beside it keeps "
    "the fields as they are under a name."
)


def defaults() -> dict[str, Any]:
    """Every preference by name, as it is when nobody has set anything."""
    asked = {entry.name: entry.default for entry in fields(ReconstructionRequest)}
    return {name: _OWN_DEFAULTS.get(name, asked.get(name)) for name in PREFERENCES}


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
    # Not isinstance(): a bool is an int, and True would count as one sample.
    return value if type(value) is type(default) else default


def remember(name: str, value: Any) -> None:
    """Set a preference for the docks and sessions to come, where napari keeps them."""
    with suppress(ImportError, KeyError, AttributeError, ValueError, OSError):
        from napari.settings import get_plugin_settings

        setattr(getattr(get_plugin_settings(PLUGIN), PREFERENCES[name]), name, value)


def presets_path() -> Path:
    """The file with the microscopes that the user saved; it may not exist yet."""
    place = QStandardPaths.StandardLocation.GenericConfigLocation
    return Path(QStandardPaths.writableLocation(place)) / PLUGIN / PRESETS


def read_presets() -> dict[str, dict[str, Any]]:
    """Optics by request name of every microscope that was saved, by its name.

    Raises
    ------
    RequestError
        The file cannot be read, or holds what no microscope has.
    """
    path = presets_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read ({error}). Remove it, or mend it.") from error
    try:
        found = tomllib.loads(text)
        return {name: check_preset(name, values) for name, values in found.items()}
    except (tomllib.TOMLDecodeError, RequestError) as error:
        raise RequestError(
            f"{path}: is no list of microscopes ({error}). Remove it, or mend it."
        ) from error


def check_preset(name: str, values: Any) -> dict[str, Any]:
    """The optics of a microscope, if they are allowed, else RequestError."""
    if not isinstance(values, Mapping) or not values:
        raise RequestError(f"{name} has no values; at least one is needed, such as the pixel size")
    strange = [one for one in values if one not in PRESET_VALUES]
    if strange:
        raise RequestError(f"{name} has {strange[0]!r}; allowed are {', '.join(PRESET_VALUES)}")
    for one, value in values.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        good = [isinstance(number, int | float) and bool(np.isfinite(number)) for number in numbers]
        if not all(good) or isinstance(value, bool) or (len(numbers) > 1) != (one == "defocus_um"):
            raise RequestError(f"{name}: {one} is {value!r}; a number is needed")
    optics: dict[str, Any] = {
        one: tuple(map(float, value)) if one == "defocus_um" else float(value)
        for one, value in values.items()
    }
    # A request checks the optics; the photons are a setting of Train alone.
    asked = {one: value for one, value in optics.items() if one != "photons"}
    blank = ImageStack(array=np.zeros((1, 1)), axes="YX")
    try:
        ReconstructionRequest(image=blank, model="any", **asked)
    except OpticsError as error:
        raise RequestError(f"{name}: {error}") from error
    return optics


def save_preset(name: str, values: Mapping[str, Any]) -> None:
    """Keep a microscope under a name; an older one of that name is replaced.

    Raises
    ------
    RequestError, ImageFileError
        Values that are not allowed, a file that cannot be read, or a folder without room.
    """
    write_presets({**read_presets(), name: check_preset(name, values)})


def write_presets(presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Write all microscopes at once; an older file stays until the new one is complete."""
    from napari_cvdm.io.atomic import write_file

    path = presets_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        name: {one: list(value) if one == "defocus_um" else value for one, value in values.items()}
        for name, values in presets.items()
    }
    write_file(path, tomli_w.dumps(plain).encode())


def own_models() -> Path:
    """The user's folder of models; it may not exist yet."""
    return Path(os.path.expanduser(preferred("model_folder") or OWN_MODELS))
