"""From a fresh clone to pictures.

Install napari-cvdm into .venv and reconstruct the sample images with the models it ships.

Usage: python3 tools/run_demo.py [FOLDER]
       the pictures and TIFFs are left in FOLDER (demo, or demo-2 and so on where that exists)
"""

import sys
from itertools import count
from pathlib import Path

from environment import REPOSITORY, prepare, run


def main() -> None:
    """Install what is missing, then run ``napari-cvdm demo``."""
    folder = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else free_folder()
    programs = prepare()
    run([str(programs / "napari-cvdm"), "demo", "--out", str(folder)])
    print(f"Look at {folder}")


def free_folder() -> Path:
    """Return the first of demo, demo-2, demo-3 ... that does not exist in the repository.

    So nothing is overwritten.
    """
    names = (f"demo-{number}" if number > 1 else "demo" for number in count(1))
    return next(REPOSITORY / name for name in names if not (REPOSITORY / name).exists())


if __name__ == "__main__":
    main()
