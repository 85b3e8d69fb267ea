"""The optics are not what the request says."""

from dataclasses import replace

from paper.measure import Row
from paper.reviewer.bench import Bench, Finding
from paper.reviewer.compare import compared
from paper.reviewer.scene import PHASE, WIDEFIELD, Scene, phase_scene, widefield_scene

NA_OF_PHASE = 0.6


def expected(factor: float) -> str:
    """What the transport of intensity says of the phase: phi ~ n px^2 / (lambda dz)."""
    return f"(expected {factor - 1:+.0%})"


def pixel_size(bench: Bench) -> Finding:
    """Twice the pixel: told so (phase), or truly so (widefield, where the network is not told)."""
    if bench.is_phase:
        wrong = bench.scene.told_otherwise(pixel_um=2 * bench.scene.told["pixel_um"])
        return with_warnings(bench, "Wrong pixel size", {f"told 2 x {expected(4.0)}": wrong})
    doubled = (2 * WIDEFIELD.pixel_um[0],) * 2
    binned = widefield_scene(bench.side, replace(WIDEFIELD, pixel_um=doubled))
    scenes = {
        "truly 2 x, told as usual": binned,
        "truly 2 x, told so": binned.told_otherwise(pixel_um=doubled[0]),
    }
    return with_warnings(bench, "Wrong pixel size", scenes)


def with_warnings(bench: Bench, title: str, scenes: dict[str, Scene]) -> Finding:
    """The comparison, and whether the result carries a warning."""
    finding = compared(bench, title, scenes)
    warned = {case.name: len(case.result.provenance.warnings) for case in finding.cases}
    return replace(
        finding,
        rows=[
            *finding.rows,
            *(Row(what=f"{name}: warnings", value=f"{count}") for name, count in warned.items()),
        ],
    )


def distance(bench: Bench) -> Finding:
    """Told a distance between the planes that is 20 % off."""
    factors = (0.8, 1.2)
    below, above = PHASE.defocus_um
    scenes = {
        f"told {f - 1:+.0%} {expected(1 / f)}": bench.scene.told_otherwise(
            defocus_um=(f * below, f * above)
        )
        for f in factors
    }
    return compared(bench, "Distance of the planes", scenes)


def wavelength(bench: Bench) -> Finding:
    """A wavelength that is 10 % off."""
    factors = (0.9, 1.1)
    if bench.is_phase:
        told = bench.scene.told["wavelength_um"]
        return compared(
            bench,
            "Wavelength",
            {
                f"told {f - 1:+.0%} {expected(1 / f)}": bench.scene.told_otherwise(
                    wavelength_um=f * told
                )
                for f in factors
            },
        )
    truly = WIDEFIELD.wavelength_um[0]
    return compared(
        bench,
        "Wavelength",
        {
            f"truly {f - 1:+.0%}": widefield_scene(
                bench.side, replace(WIDEFIELD, wavelength_um=(f * truly, f * truly))
            )
            for f in factors
        },
    )


def aperture(bench: Bench) -> Finding:
    """A numerical aperture that is 10 % off."""
    factors = (0.9, 1.1)
    if bench.is_phase:
        return _aperture_of_phase(bench, factors)
    truly = WIDEFIELD.na[0]
    return compared(
        bench,
        "Numerical aperture",
        {
            f"truly {f - 1:+.0%}": widefield_scene(
                bench.side, replace(WIDEFIELD, na=(f * truly, f * truly))
            )
            for f in factors
        },
    )


def _aperture_of_phase(bench: Bench, factors: tuple[float, ...]) -> Finding:
    seen = {
        f: phase_scene(
            bench.side, replace(PHASE, microscope=replace(PHASE.microscope, na=f * NA_OF_PHASE))
        )
        for f in (1.0, *factors)
    }
    untouched = bench.case(f"NA {NA_OF_PHASE:g}", seen[1.0])
    return compared(
        bench,
        "Numerical aperture",
        {f"truly {f - 1:+.0%}": seen[f].told_otherwise(na=NA_OF_PHASE) for f in factors},
        untouched,
    )
