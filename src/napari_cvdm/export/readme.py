"""The documentation in a package: what it does, what it was measured to do, and where it stops."""

from collections.abc import Iterable

from napari_cvdm import __version__
from napari_cvdm.core.plan import count_planes
from napari_cvdm.export.sampler import PackageSettings
from napari_cvdm.models.checkpoint import ModelCard
from napari_cvdm.tasks import TASKS

_SAMPLER = """\
# {title}: posterior sampler

Takes {inputs}, in camera counts, as measured: background, intensity scale and all that the \
networks see are computed inside. Returns the mean
and the standard deviation [{unit}] of posterior samples of a conditional variational diffusion \
model (CVDM). It does what `napari-cvdm restore`
does with the same model, settings and seed.

## Fixed in this package

{fixed}

For other optics make another package: `napari-cvdm export MODEL --format bioimageio --out DIR \
--pixel-um P ...`

## How to use it

- It needs the Python package napari-cvdm {version}, which the environment file names: the code of \
the sampler is there, not here.
{planes}- Give whole images. A tile would get an intensity scale of its own (of a phase: low \
spatial frequencies of its own), and the same noise as every other
  tile, so that seams show.
- The standard deviation is the spread of the samples, not a bound on the error.
- Do not trust saturated or dark pixels, and of a fluorescence image those within 8 px of the frame.
"""

_ONE_STEP = """\
# {title}: one-step mean

One evaluation of the networks of a conditional variational diffusion model (CVDM), at the \
noisiest time and without noise: the mean that the
model expects before it samples. **It has no spread.** For the mean and the standard deviation of \
posterior samples use the posterior sampler of the
same model.

## What it takes and gives
"""

_FROM_COUNTS = """
Camera counts in, counts above the dark level out, on the same grid. Dark level and intensity \
scale are those of the image that is given:
give whole images, not tiles. Do not trust pixels within 8 px of the frame, or saturated ones.
"""

_FROM_CHANNELS = """
The channels and the baseline that napari-cvdm makes from the measured planes: they need Fourier \
transforms and estimates over the whole field, which
are not part of this file. Their number does not depend on that of the planes. They cover the \
measured frame and a little around it. The result is in
network units. `blend` takes the share of it that `napari-cvdm restore` takes, and levels it:

```python
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.tasks import TASKS

# planes: (P, Y, X); request: a napari_cvdm.ReconstructionRequest with the optics:
prepared = prepare_frame(planes, request, TASKS["phase-2shot"])
# defocus_um has one position for each plane, condenser_na is that of an open condenser
condition, baseline = prepared.channels[None].numpy(), prepared.initial_estimate[None, None].numpy()
# mean: what this network makes of condition and baseline; the phase is zero in the cell-free \
background
phase_rad = prepared.kept(prepared.posterior.blend(mean[0, 0] * prepared.gain))
```
"""

_FROM_DECONVOLVED = """
The channels and the baseline that napari-cvdm makes from the measured image: a deconvolution with \
the PSF of its microscope is among them, which
is not part of this file. The result is in network units of `prepared.gain` counts, on a grid \
twice as fine:

```python
from napari_cvdm.reconstruction.plan import prepare_frame
from napari_cvdm.tasks import TASKS

# image: (Y, X); request: a napari_cvdm.ReconstructionRequest with the optics
prepared = prepare_frame(image[None], request, TASKS["widefield-x2"])
condition, baseline = prepared.channels[None].numpy(), prepared.initial_estimate[None, None].numpy()
# mean: what this network makes of condition and baseline
counts = mean[0, 0] * prepared.gain
```
"""

_CARD = """
## Trained for

{optics}
- intensities: {intensity}
- resolution: {resolution}

## Limits

{limits}

## Validation

Figures from the model's card. Check the model on images of your own whose truth you know before \
you rely on it.

{metrics}

## Cite

della Maggiora et al., Conditional Variational Diffusion Models, ICLR 2024, arXiv 2312.02246; and \
napari-cvdm {version}.
"""


def sampler_readme(card: ModelCard, settings: PackageSettings, warnings: Iterable[str]) -> str:
    """Markdown for the posterior sampler; the warnings are those of a run with these optics."""
    fixed = _listed(
        [
            *(f"{name}: {value}" for name, value in settings.given().items()),
            *(f"**warning**: {warning}" for warning in warnings),
        ]
    )
    count = count_planes(TASKS[card.task].planes, settings.defocus_um)
    planes = f"- Give {count} planes, in the order of defocus_um.\n" if count > 1 else ""
    return _SAMPLER.format(
        title=card.title,
        inputs=card.inputs,
        unit=card.unit,
        fixed=fixed,
        planes=planes,
        version=__version__,
    ) + _from_card(card)


def one_step_readme(card: ModelCard, *, from_counts: bool) -> str:
    """Markdown for the one-step mean, which takes camera counts or prepared channels."""
    # Of the models that cannot start from counts, a phase model gives radians, the other counts.
    from_channels = _FROM_CHANNELS if card.unit == "rad" else _FROM_DECONVOLVED
    return (
        _ONE_STEP.format(title=card.title)
        + (_FROM_COUNTS if from_counts else from_channels)
        + _from_card(card)
    )


def _from_card(card: ModelCard) -> str:
    return _CARD.format(
        optics=_listed(f"{name}: {low:g} to {high:g}" for name, (low, high) in card.optics.items()),
        intensity=card.intensity,
        resolution=card.resolution,
        limits=_listed(card.limits),
        metrics=_listed(f"{name}: {value}" for name, value in card.metrics.items()),
        version=__version__,
    )


def _listed(entries: Iterable[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries) or "- none stated"
