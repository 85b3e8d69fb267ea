"""Draw the two pictures of the README: the samples of the demo, reconstructed, beside their truth.

Usage: python docs/readme_pictures.py
       docs/images/NAME.png, at most 200 kB each
"""

from pathlib import Path

from PIL import Image

from napari_cvdm.cli.demo import panels, sample_images
from napari_cvdm.cli.figures import draw_panels
from napari_cvdm.core.result import finished
from napari_cvdm.reconstruction.methods import load_method
from napari_cvdm.reconstruction.reconstruct import reconstruct

OUT = Path(__file__).parent / "images"
SAMPLES, WIDTH_PX, COLOURS = 16, 960, 200


def main() -> None:
    """Reconstruct both samples, and write one picture each: input, mean, truth."""
    OUT.mkdir(exist_ok=True)
    for sample in sample_images(SAMPLES):
        name = sample.request.model
        result = finished(reconstruct(sample.request, load_method(name)))
        path = OUT / f"{name}.png"
        draw_panels(path, sample.title, panels(sample.request.image, result, sample.truth)[:3])
        with Image.open(path) as drawn:
            height = round(drawn.height * WIDTH_PX / drawn.width)
            small = drawn.convert("RGB").resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
        small.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


if __name__ == "__main__":
    main()
