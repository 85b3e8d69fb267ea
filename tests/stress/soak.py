"""Mixed work without end.

`python -m tests.stress.soak --minutes M` reconstructs, cancels, fails, trains, writes and reads,
lap after lap.

With --window the same in napari (under Xvfb:
`xvfb-run -a -s "-screen 0 1280x800x24" python -m tests.stress.soak --window --minutes M`): docks
are opened, run, cancelled and closed. Printed: how many laps, and what memory, open files and
threads gained for each of them after the first third. Exits with 1 if any of them is above its bar.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from functools import partial
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from paper.gauges import Gauges
from paper.measure import print_rows
from tests.stress.fuzzing.model_specimens import RECIPE, tiny_model

from napari_cvdm.cli import main as command
from napari_cvdm.core.request import ImageStack, ReconstructionRequest, TrainRequest
from napari_cvdm.core.result import Stop, finished
from napari_cvdm.io import combine_planes, read_image, write_image
from napari_cvdm.io.result_folder import PROVENANCE, read_result_folder
from napari_cvdm.models.bundle import add_model, write_bundle
from napari_cvdm.models.checkpoint import CARD, load_checkpoint
from napari_cvdm.reconstruction.reconstruct import reconstruct
from napari_cvdm.training.loop import train

SHAPES = ((96, 96), (97, 120), (2, 96, 101), (128, 96))
FEWEST_LAPS = 6
TRAINED_EVERY = 3
OPTICS = {"pixel_um": 0.2, "wavelength_um": 0.55, "medium_index": 1.33, "defocus_um": (-1.0, 1.0)}
QUICK = {"samples": 2, "steps": 2, "device": "cpu", "tile": 64}


class Lap:
    """The jobs of one lap, in a folder of its own."""

    def __init__(self, models: dict[str, Path], folder: Path, number: int) -> None:
        self.models, self.folder, self.number = models, folder, number
        self._rng = np.random.default_rng(number)

    def _image(self, shape: tuple[int, ...]) -> ImageStack:
        return ImageStack(
            array=self._rng.poisson(200, shape).astype(np.float32),
            axes="TYX"[-len(shape) :],
            pixel_um=0.1,
        )

    def _widefield(self) -> ReconstructionRequest:
        return ReconstructionRequest(
            image=self._image(SHAPES[self.number % len(SHAPES)]),
            model="tiny",
            **QUICK,
            keep_samples=True,
            schedule_points=3,
        )

    def widefield(self) -> None:
        """A fluorescence image, another shape in each lap."""
        finished(reconstruct(self._widefield(), load_checkpoint(self.models["widefield-x2"])))

    def phase(self) -> None:
        """A pair of planes."""
        image = combine_planes(
            ImageStack(array=self._rng.poisson(900, (2, 96, 110)).astype(np.float32), axes="ZYX")
        )
        finished(
            reconstruct(
                ReconstructionRequest(image=image, model="tiny", **QUICK, **OPTICS),
                load_checkpoint(self.models["phase-2shot"]),
            )
        )

    def cancelled(self) -> None:
        """Stopped in the middle, and stopped with what was finished kept."""
        model = load_checkpoint(self.models["widefield-x2"])
        with closing(reconstruct(self._widefield(), model)) as steps:
            for _ in islice(steps, 3):
                pass
        steps = reconstruct(self._widefield(), model)
        with suppress(StopIteration):
            next(steps)
            while True:
                steps.send(Stop.KEEP)

    def failures(self) -> None:
        """Each of these must be refused in words.

        A file that is none, optics that cannot be, a model that is missing, an image of NaN.
        """
        bad = self.folder / "bad.tif"
        bad.write_bytes(b"II*\x00 not an image")
        nowhere = self.folder / "nowhere"
        wrong: tuple[Callable[[], object], ...] = (
            lambda: read_image(bad),
            lambda: ReconstructionRequest(image=self._image((96, 96)), model="tiny", pixel_um=65.0),
            lambda: load_checkpoint(nowhere),
            lambda: command(["restore", str(bad), "--model", str(nowhere), "--out", str(nowhere)]),
        )
        for attempt in wrong:
            with suppress(ValueError), redirect_stderr(io.StringIO()):
                attempt()

    def files(self) -> None:
        """Write an image, restore it by the command line, open the result, damage it.

        The damaged result must be refused.
        """
        image, out = self.folder / "image.tif", self.folder / "out"
        write_image(
            image, self._image((96, 96)).array, axes="YX", pixel_um=0.1, unit="counts", name="image"
        )
        options = [word for name, value in QUICK.items() for word in (f"--{name}", str(value))]
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            assert (
                command(
                    [
                        "restore",
                        str(image),
                        "--model",
                        str(self.models["widefield-x2"]),
                        *options,
                        "--out",
                        str(out),
                        "--keep-samples",
                    ]
                )
                == 0
            )
        read_result_folder(out)
        (out / PROVENANCE).write_text(json.dumps({"versions": {"napari-cvdm": "0"}}))
        with suppress(ValueError):
            read_result_folder(out)

    def models_passed_on(self) -> None:
        """A bundle written and added."""
        bundle = write_bundle(self.models["widefield-x2"], self.folder / "model.zip")
        add_model(bundle, self.folder / "mine")
        with suppress(ValueError):
            add_model(bundle, self.folder / "mine")

    def training(self) -> None:
        """A few steps of a training, left in the middle."""
        steps = train(
            TrainRequest(
                recipe=str(self.models["recipe"]), out=str(self.folder / "run"), device="cpu"
            )
        )
        with closing(steps):
            for _ in islice(steps, 4):
                pass

    def run(self) -> None:
        """Every job once; the training, which takes as long as all others, in every third lap."""
        for job in (
            self.widefield,
            self.phase,
            self.cancelled,
            self.failures,
            self.files,
            self.models_passed_on,
        ):
            job()
        if self.number % TRAINED_EVERY == 0:
            self.training()


def made_models(folder: Path) -> dict[str, Path]:
    """Two tiny models and a short recipe."""
    models = {name: tiny_model(folder / name, name) for name in ("widefield-x2", "phase-2shot")}
    assert all((path / CARD).exists() for path in models.values())
    text = (
        RECIPE.read_text(encoding="utf-8")
        .replace("pool_fields = 8", "pool_fields = 2")
        .replace("_steps = 80", "_steps = 2")
    )
    recipe = folder / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    return {**models, "recipe": recipe}


def laps(seconds: float, fewest: int = FEWEST_LAPS) -> Iterator[int]:
    """Numbers of laps until the time is over, and a few in any case."""
    until = time.monotonic() + seconds
    for number in count():
        if number >= fewest and time.monotonic() > until:
            return
        yield number


def soak(seconds: float, fewest: int = FEWEST_LAPS) -> Gauges:
    """Lap after lap without a window."""
    gauges = Gauges()
    with TemporaryDirectory() as name:
        models = made_models(Path(name))
        for number in laps(seconds, fewest):
            with TemporaryDirectory() as folder:
                Lap(models, Path(folder), number).run()
            gauges.read()
    return gauges


def main() -> None:
    """Soak, print the slopes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--window", action="store_true", help="in napari")
    parser.add_argument(
        "--bare",
        action="store_true",
        help=(
            "in napari, with the layers that a lap makes and as many docks, and nothing of this "
            "program"
        ),
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    where, work = "without a window", soak
    if asked.window or asked.bare:
        from tests.stress.soak_window import soak_window

        where = "of napari alone" if asked.bare else "in a window"
        work = partial(soak_window, bare=asked.bare)
    gauges = work(60 * asked.minutes)
    rows = gauges.rows()
    print_rows(f"{len(gauges.files)} laps {where}", rows)
    sys.exit(any(row.met is False for row in rows))


if __name__ == "__main__":
    main()
