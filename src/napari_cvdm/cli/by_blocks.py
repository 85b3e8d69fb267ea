"""``napari-cvdm restore --out NAME.ome.zarr``: block by block, in this process or on a cluster."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields

from napari_cvdm.cli import say_done
from napari_cvdm.cli.progress import with_bar
from napari_cvdm.core.request import ReconstructionRequest, image_roles
from napari_cvdm.out_of_core.job import TiledFiles
from napari_cvdm.out_of_core.run import Executor, reconstruct_by_blocks, run_serial


def run_by_blocks(arguments: Namespace, files: Mapping[str, str]) -> None:
    """Carry out ``napari-cvdm restore`` block by block; blocks of an earlier run are kept.

    Parameters
    ----------
    arguments : Namespace
    files : mapping of str to str
        Files by role: image, image2, image3 and so on, background.
    """
    job = job_of(arguments, files)
    executor = executor_for(arguments, job)
    request, model = job.open()
    try:
        made = with_bar(reconstruct_by_blocks(request, model, executor), "reconstructing")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "the blocks that are done are kept; give the same command again to go on."
        ) from None
    earlier = f", {made.earlier} of them by an earlier run" if made.earlier else ""
    say_done(f"{made.path}: {', '.join(made.images)} ({made.blocks} blocks{earlier})")
    for warning in made.warnings:
        print(f"napari-cvdm: warning: {warning}", file=sys.stderr)


def executor_for(arguments: Namespace, job: TiledFiles) -> Executor:
    """In this process, or on the cluster that the arguments name."""
    if not hasattr(arguments, "scheduler"):
        return run_serial
    from napari_cvdm.out_of_core.dask import check_scheduler, on_cluster

    check_scheduler(arguments.scheduler)
    return on_cluster(arguments.scheduler, job)


def job_of(arguments: Namespace, files: Mapping[str, str]) -> TiledFiles:
    """The job that the arguments name."""
    given = vars(arguments)
    options = {
        entry.name: given[entry.name]
        for entry in fields(ReconstructionRequest)
        if entry.name in given
    }
    for name in ("image", "model", "background"):
        options.pop(name, None)
    return TiledFiles(
        images=tuple(files[role] for role in image_roles(files)),
        model=arguments.model,
        out=arguments.out,
        background=given.get("background", "auto"),
        options=options,
        overwrite=arguments.overwrite,
        **{name: given[name] for name in ("block", "halo") if name in given},
    )
