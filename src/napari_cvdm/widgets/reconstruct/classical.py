"""A classical result of the same image as one layer, drawn as the result is."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from napari_cvdm.core.request import OPTICS, RequestError
from napari_cvdm.core.result import Reconstruction
from napari_cvdm.widgets.layers.layer_data import METADATA_KEY, LayerData, look_of
from napari_cvdm.widgets.layers.placement import Placement, placed_image
from napari_cvdm.widgets.layers.reconstruction import Run

if TYPE_CHECKING:
    from napari.layers import Layer


def classical_run(run: Run, task: str, typed: Mapping[str, Any]) -> Run:
    """The run of the classical method that fits a task, on the same image with the same settings.

    Parameters
    ----------
    run : Run
        Of the model.
    task : str
        Its name in `napari_cvdm.tasks`.
    typed : mapping
        Optics by request name; those that the model did without are taken from here.

    Returns
    -------
    Run

    Raises
    ------
    RequestError
        There is no classical method for the task.
    """
    from napari_cvdm.baselines import FITTING

    if task not in FITTING:
        raise RequestError(
            f"no classical method is known for the task {task}; there are some for "
            f"{', '.join(FITTING)}."
        )
    known = {name: run.request.known_optics(name) for name in OPTICS}
    lacking: dict[str, Any] = {
        name: typed.get(name) for name, value in known.items() if value is None
    }
    request = replace(
        run.request,
        model=FITTING[task],
        samples=1,
        keep_samples=False,
        schedule_points=0,
        **lacking,
    )
    return replace(run, request=request, earlier=None)


def classical_layer_data(
    reconstruction: Reconstruction, source: Placement, beside: "Layer | None"
) -> LayerData:
    """One layer for the answer of a classical method; it belongs to no group of results.

    Parameters
    ----------
    reconstruction : Reconstruction
    source : Placement
        Of the measured image.
    beside : Layer, optional
        The reconstruction that it is compared with: it gives contrast limits and colour map.

    Returns
    -------
    tuple of (data, keywords, layer type)
    """
    source, unit = source.within(reconstruction.region), reconstruction.unit
    values, place = placed_image(
        source, reconstruction.axes, reconstruction.upsampling, reconstruction.mean
    )
    look = look_of(reconstruction.mean, unit)
    if beside is not None:
        look = {name: getattr(beside, name) for name in look}
    method = reconstruction.provenance.model["name"]
    mark = {
        "role": f"classical {method}",
        "source": source.name,
        "unit": unit,
        "provenance": asdict(reconstruction.provenance),
    }
    return (
        values,
        {
            "name": f"{method} (classical) of {source.name}",
            "metadata": {METADATA_KEY: mark},
            **place.keywords(),
            **look,
        },
        "image",
    )
