"""Eight fixed runs give the same pixels, weights and scores at two commits.

For a change that must not change behaviour.

Usage: .venv/bin/python tools/compare_results.py OLD [NEW]
       commits; NEW is the working tree, if left out

Everything goes through the command line, which stays while modules move. Provenance and metadata
are not compared.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import tomli_w
import tomllib
from safetensors.numpy import load

REPOSITORY = Path(__file__).resolve().parent.parent
START = "import sys; from napari_cvdm.cli import main; sys.exit(main())"
PHASE = [
    "--wavelength-um",
    "0.55",
    "--medium-index",
    "1.337",
    "--defocus-um",
    "-1",
    "1",
    "--pixel-um",
    "0.2",
]
FEW = ["--samples", "2", "--steps", "3", "--device", "cpu"]


def command(source: Path, words: list[str], folder: Path) -> None:
    """Run the command line of one source tree; its output is shown where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", START, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(
            f"{source}: napari-cvdm {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


def make_inputs(source: Path, folder: Path) -> None:
    """Two planes, a widefield image, a movie, and a recipe of 20 steps."""
    command(source, ["simulate", "phase", "--seed", "3", "--out", "phase"], folder)
    command(source, ["simulate", "widefield", "--seed", "3", "--out", "widefield"], folder)
    for name in ("phase", "widefield"):
        shutil.copy(
            next(
                path for path in sorted((folder / name).rglob("*.tif*")) if "truth" not in path.name
            ),
            folder / f"{name}.tif",
        )
    image = tifffile.imread(folder / "widefield.tif").squeeze()
    tifffile.imwrite(
        folder / "movie.tif",
        np.stack([image[:64, :64], image[64:128, :64]]).astype(np.float32),
        imagej=True,
        metadata={"axes": "TYX"},
    )
    recipe = tomllib.loads((source / "recipes" / "smoke.toml").read_text(encoding="utf-8"))
    recipe["plan"] |= {"mean_steps": 10, "diffusion_steps": 10}
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")


RUNS = {
    "phase": ["restore", "phase.tif", "--model", "phase-2shot", *PHASE, *FEW],
    "super-resolution": [
        "restore",
        "widefield.tif",
        "--model",
        "widefield-x2",
        "--pixel-um",
        "0.1",
        *FEW,
    ],
    "movie": ["restore", "movie.tif", "--model", "widefield-x2", "--pixel-um", "0.1", *FEW],
    "region": [
        "restore",
        "widefield.tif",
        "--model",
        "widefield-x2",
        "--pixel-um",
        "0.1",
        "--region",
        "8",
        "72",
        "16",
        "80",
        *FEW,
    ],
    "block-wise": [
        "restore",
        "widefield.tif",
        "--model",
        "widefield-x2",
        "--pixel-um",
        "0.1",
        "--block",
        "64",
        *FEW,
    ],
    "evaluation": [
        "evaluate",
        "widefield-x2",
        "--fields",
        "2",
        "--field-px",
        "48",
        "--samples",
        "4",
        "--steps",
        "3",
        "--device",
        "cpu",
    ],
    "training": ["train", "recipe.toml"],
    "export": ["export", "widefield-x2"],
}

ENDINGS = {"block-wise": ".ome.zarr", "export": ".zip"}


def hashes_of(path: Path) -> Iterator[tuple[str, str]]:
    """Name and hash of everything in a folder that a user would call the result."""
    for file in sorted(path.rglob("*") if path.is_dir() else [path]):
        name = file.relative_to(path.parent).as_posix()
        if file.suffix in (".tif", ".tiff"):
            yield name, _hash(tifffile.imread(file).tobytes())
        elif file.suffix == ".safetensors" and file.name != "training.safetensors":
            yield name, _hash_weights(file.read_bytes())
        elif file.name == "metrics.json":
            scores = json.loads(file.read_text(encoding="utf-8"))
            yield (
                name,
                _hash(json.dumps({key: scores[key] for key in scores if key != "cost"}).encode()),
            )
        elif file.suffix == ".csv" or (
            file.is_file() and "c" in file.relative_to(path).parts and "zarr" in path.suffix
        ):
            yield name, _hash(file.read_bytes())
        elif file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                yield from (
                    (f"{name}/{inner}", _hash_weights(archive.read(inner)))
                    for inner in archive.namelist()
                    if inner.endswith(".safetensors")
                )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _hash_weights(content: bytes) -> str:
    return _hash(b"".join(tensor.tobytes() for _, tensor in sorted(load(content).items())))


def results(source: Path, inputs: Path, runs: list[str]) -> dict[str, str]:
    """Hashes of all results of a source tree."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        shutil.copytree(inputs, folder)
        (folder / "out").mkdir()
        for name in runs:
            out = folder / "out" / f"{name}{ENDINGS.get(name, '')}"
            command(source, [*RUNS[name], "--out", str(out)], folder)
            hashes = dict(hashes_of(out))
            if not hashes:
                raise SystemExit(f"{name}: the run left nothing to compare in {out}.")
            found |= hashes
            print(f"  {name}", flush=True)
    return found


def main() -> None:
    """Make both sets of results and name what differs; exit status 1 where something does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new", nargs="?")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        trees: list[Path] = []
        for name in (options.old, options.new):
            tree = Path(temporary) / f"tree{len(trees)}" if name else REPOSITORY
            if name:
                subprocess.run(
                    ["git", "worktree", "add", "--detach", str(tree), name],
                    cwd=REPOSITORY,
                    check=True,
                    capture_output=True,
                )
            trees.append(tree)
        try:
            inputs = Path(temporary) / "inputs"
            inputs.mkdir()
            make_inputs(trees[0], inputs)
            old, new = (results(tree, inputs, options.runs) for tree in trees)
        finally:
            for tree in trees:
                if tree != REPOSITORY:
                    subprocess.run(
                        ["git", "worktree", "remove", "--force", str(tree)],
                        cwd=REPOSITORY,
                        check=False,
                    )
    different = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    for name in sorted(old.keys() | new.keys()):
        print(
            f"{'DIFFERS' if name in different else 'same':8} {old.get(name, '-'):16} "
            f"{new.get(name, '-'):16} {name}"
        )
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
