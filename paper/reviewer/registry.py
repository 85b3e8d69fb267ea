"""Every test by its name, with what it asks and of which tasks."""

from collections.abc import Callable
from dataclasses import dataclass

from paper.reviewer import blank, camera, invariance, optics, phase, structure
from paper.reviewer.bench import Bench, Finding

WIDEFIELD, PHASE = "widefield-x2", "phase-2shot"
BOTH = (WIDEFIELD, PHASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One entry of the battery.

    Parameters
    ----------
    asks : str
        The question.
    run : callable
        Bench -> Finding.
    tasks : tuple of str
        Tasks that it applies to.
    """

    asks: str
    run: Callable[[Bench], Finding]
    tasks: tuple[str, ...] = BOTH


TESTS: dict[str, Test] = {
    "blank": Test(asks="Does an empty field stay empty?", run=blank.blank, tasks=(WIDEFIELD,)),
    "noise-only": Test(asks="Is noise drawn as structure?", run=blank.noise_only),
    "beads": Test(asks="Are all beads found, and no others?", run=structure.beads),
    "out-of-focus": Test(
        asks="Is light from out of focus drawn as structure; what does a wrong focus cost?",
        run=structure.out_of_focus,
    ),
    "unseen": Test(asks="What becomes of structure that no training showed?", run=structure.unseen),
    "inverted": Test(asks="What if the contrast is turned round?", run=structure.inverted),
    "saturated": Test(asks="What if the brightest pixels are cut off?", run=camera.saturated),
    "dead-pixels": Test(asks="What do dead and hot pixels do?", run=camera.dead_pixels),
    "jpeg": Test(asks="What do 8 bits and JPEG do?", run=camera.jpeg),
    "exposure": Test(asks="Does the result follow the light?", run=camera.exposure),
    "offset": Test(asks="Does a background offset matter?", run=camera.offset),
    "flux": Test(asks="Is flux kept?", run=camera.flux, tasks=(WIDEFIELD,)),
    "ramp": Test(asks="What does uneven light do?", run=camera.ramp),
    "pixel-size": Test(asks="What if the pixel is twice as large as said?", run=optics.pixel_size),
    "distance": Test(
        asks="What if the distance of the planes is 20 % off?", run=optics.distance, tasks=(PHASE,)
    ),
    "wavelength": Test(asks="What if the wavelength is 10 % off?", run=optics.wavelength),
    "aperture": Test(asks="What if the numerical aperture is 10 % off?", run=optics.aperture),
    "half-pixel": Test(asks="What does half a pixel of shift do?", run=invariance.half_pixel),
    "rotation": Test(asks="Does a turned image give the turned result?", run=invariance.rotation),
    "translation": Test(asks="Does it matter where the frame was cut?", run=invariance.translation),
    "zero-phase": Test(asks="Is the phase of nothing zero?", run=phase.zero_phase, tasks=(PHASE,)),
    "linearity": Test(
        asks="Is the phase right from 0.05 to 6 rad?", run=phase.linearity, tasks=(PHASE,)
    ),
    "dry-mass": Test(
        asks="Does dry mass depend on the distance of the planes?",
        run=phase.dry_mass,
        tasks=(PHASE,),
    ),
}
