"""The log of a training: a CSV file, and TensorBoard's where it is installed."""

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LOSSES = (
    "baseline",
    "mean",
    "network",
    "noise",
    "prior",
    "smoothness",
    "boundary",
    "schedule",
    "likelihood",
)
HELD_OUT = tuple(
    f"held_out_{name}" for name in ("rmse", "centre_rmse", "baseline_rmse", "crps", "spread_ratio")
)
COLUMNS = ("stage", "step", "learning_rate", *LOSSES, "gradient", *HELD_OUT)


class RunLog:
    """Lines of numbers by stage and step, in ``log.csv`` and ``tensorboard/``.

    Parameters
    ----------
    folder : path
    resumed : tuple of (str, int), optional
        Stage and step at which the training resumes. Lines of later steps are removed, because
        these steps are done again.
    """

    def __init__(self, folder: Path, resumed: tuple[str, int] | None = None) -> None:
        self._path = folder / "log.csv"
        if resumed is not None:
            self._forget_after(*resumed)
        self._board = _tensorboard(folder / "tensorboard")

    def add(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Write one line."""
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(
                {
                    "stage": stage,
                    "step": step,
                    **{name: f"{value:.6g}" for name, value in values.items()},
                }
            )
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{stage}/{name}", value, step)
            self._board.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _forget_after(self, stage: str, step: int) -> None:
        if not self._path.exists():
            return
        lines = [
            line
            for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            if line.endswith("\n")
        ]  # a kill may cut the last one
        earlier = {"mean"} if stage == "diffusion" else set()
        rows = zip(lines[1:], csv.DictReader(lines), strict=True)
        kept = [
            line
            for line, row in rows
            if row["stage"] in earlier or (row["stage"] == stage and int(row["step"]) <= step)
        ]
        self._path.write_text("".join([*lines[:1], *kept]), encoding="utf-8", newline="")


def _tensorboard(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
