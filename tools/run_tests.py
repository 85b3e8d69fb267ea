"""From a fresh clone to a green test run.

Install what is missing, then run every check (or those named).

Usage: python3 tools/run_tests.py [CHECK ...]
           checks: see tools/check.py; all of them by default
       python3 tools/run_tests.py --system-packages
           print the Debian packages that the window tests need
"""

import sys

from environment import REPOSITORY, prepare, require_python, require_system, run

# What has what on Debian and Ubuntu: a virtual screen, OpenGL in software, and the libraries that
# Qt 6 expects of the system.
PROGRAMS = {"xvfb-run": "xvfb", "xauth": "xauth"}
LIBRARIES = {
    "libglib-2.0.so.0": "libglib2.0-0",
    "libGL.so.1": "libgl1",
    "libGLX_mesa.so.0": "libglx-mesa0",
    "libEGL.so.1": "libegl1",
    "libOpenGL.so.0": "libopengl0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
}


def main() -> None:
    """Make the environment, then hand over to ``tools/check.py`` inside it."""
    if "--system-packages" in sys.argv:
        print(*PROGRAMS.values(), *LIBRARIES.values())
        return
    require_python()
    if sys.platform.startswith("linux"):
        require_system(PROGRAMS, LIBRARIES)
    programs = prepare("test,docs")
    run([str(programs / "python"), str(REPOSITORY / "tools" / "check.py"), *sys.argv[1:]])


if __name__ == "__main__":
    main()
