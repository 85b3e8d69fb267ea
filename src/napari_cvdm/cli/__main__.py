"""``python -m napari_cvdm.cli`` is ``napari-cvdm``."""

import sys

from napari_cvdm.cli import main

sys.exit(main())
