"""What is measured of every case: false structure, bias, error, and whether the spread says so."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.stats import mannwhitneyu

from napari_cvdm.core.statistics import interior
from napari_cvdm.tasks.task import BORDER_PX
from paper.measure import Row
from paper.reviewer.bench import Case

# Output pixels from the nearest structure of the truth; nearer ones may hold its blurred edge.
EMPTY_PX = 5
LARGE_ERRORS = 0.9  # quantile of a case's own errors, for the AUROC
BLANK_BAR = 1e-3
SMALLEST_EMPTY = 0.01  # of the field: where less is empty, false structure is not spoken of


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """One case in numbers.

    Parameters
    ----------
    false_area : float
        `false_structure_area`.
    empty : float
        Share of the pixels that it looks at.
    bias : float
        Flux over the truth's, or slope against the true phase, minus 1.
    error, spread : float
        Root mean square error, and mean spread, over the root mean square of the truth.
    auroc : float
        How well the spread finds the largest tenth of the errors: 0.5 is chance, 1 finds all.
    """

    false_area: float
    empty: float
    bias: float
    error: float
    spread: float
    auroc: float


def empty_pixels(truth: np.ndarray, threshold: float) -> np.ndarray:
    """Where the truth shows nothing above the threshold within 5 px; bool (Y, X).

    The threshold is counted from the truth's most common level.
    """
    return maximum_filter(np.abs(truth - common_level(truth)), 2 * EMPTY_PX + 1) <= threshold


def common_level(image: np.ndarray) -> float:
    """Middle of the fullest of 64 bins: empty background, where most of the field is empty."""
    if np.ptp(image) == 0:
        return float(image.flat[0])
    counts, edges = np.histogram(image, bins=64)
    fullest = int(np.argmax(counts))
    return float(image[(image >= edges[fullest]) & (image <= edges[fullest + 1])].mean())


def false_structure_area(
    found: np.ndarray,
    truth: np.ndarray,
    threshold: float,
    *,
    both_signs: bool = False,
    kept: np.ndarray | None = None,
) -> float:
    """Share of the empty pixels that stand out from their own median by more than the threshold.

    Parameters
    ----------
    found, truth : ndarray of shape (Y, X)
    threshold : float
        In their unit.
    both_signs : bool
        Whether dips count, too: phase has no lower end.
    kept : ndarray of shape (Y, X), bool, optional
        Pixels to look at.

    Returns
    -------
    float
        0 to 1; 0 where nothing is empty.
    """
    empty = empty_pixels(truth, threshold)
    empty = empty if kept is None else empty & kept
    if not empty.any():
        return 0.0
    away = (found - truth)[empty]
    away = away - np.median(away)
    return float(np.mean((np.abs(away) if both_signs else away) > threshold))


def kept_pixels(case: Case) -> np.ndarray:
    """All but the border band: (Y, X), bool.

    Pixels that the program does not trust are measured as well.
    """
    return interior(
        (case.result.mean.shape[-2], case.result.mean.shape[-1]), BORDER_PX * case.result.upsampling
    )


def difference(case: Case) -> np.ndarray:
    """Mean minus truth, (Y, X); of a phase without its piston."""
    away = case.result.mean - case.scene.truth
    return away - away[kept_pixels(case)].mean() if case.result.unit == "rad" else away


def false_area(case: Case) -> float:
    """`false_structure_area` of the posterior mean."""
    return false_structure_area(
        case.result.mean,
        case.scene.truth,
        case.scene.threshold,
        both_signs=case.result.unit == "rad",
        kept=kept_pixels(case),
    )


def bias(case: Case) -> float:
    """Flux over the true flux, minus 1; of a phase, slope on the truth, minus 1.

    The slope is that of the regression on the truth. 0 for an empty truth.
    """
    kept = kept_pixels(case)
    found, truth = case.result.mean[kept].astype(float), case.scene.truth[kept].astype(float)
    if case.result.unit == "rad":
        power = float(np.var(truth))
        return (
            float(np.mean((found - found.mean()) * (truth - truth.mean()))) / power - 1
            if power > 0
            else 0.0
        )
    return float(found.sum() / truth.sum()) - 1 if truth.sum() > 0 else 0.0


def auroc(score: np.ndarray, error: np.ndarray) -> float:
    """Probability that the score is larger where the error is among its largest tenth.

    Mann-Whitney's U / (m n).
    """
    large = error > np.quantile(error, LARGE_ERRORS)
    if large.all() or not large.any():
        return 0.5
    return float(mannwhitneyu(score[large], score[~large]).statistic) / (
        int(large.sum()) * int((~large).sum())
    )


def measured(case: Case) -> Measures:
    """All numbers of one case whose truth is not empty."""
    kept = kept_pixels(case)
    truth, away = case.scene.truth[kept], difference(case)[kept]
    unit = float(np.sqrt(np.mean(np.square(truth)))) or 1.0
    return Measures(
        false_area=false_area(case),
        empty=float(empty_pixels(case.scene.truth, case.scene.threshold)[kept].mean()),
        bias=bias(case),
        error=float(np.sqrt(np.mean(away**2))) / unit,
        spread=float(case.result.std[kept].mean()) / unit,
        auroc=auroc(case.result.std[kept], np.abs(away)),
    )


def case_row(case: Case, untouched: Case) -> tuple[Row, tuple[float, float]]:
    """One case beside the untouched image, and the ratios of error and spread."""
    one, other = measured(case), measured(untouched)
    ratios = one.error / max(other.error, 1e-12), one.spread / max(other.spread, 1e-12)
    false = (
        f"false structure {one.false_area:.2%}"
        if one.empty >= SMALLEST_EMPTY
        else "hardly anything empty"
    )
    what = (
        f"{false}, {'slope' if case.result.unit == 'rad' else 'flux'} {one.bias:+.1%}, error "
        f"{one.error:.1%}"
    )
    if case is untouched:
        return Row(
            what=case.name, value=f"{what}, spread {one.spread:.1%}, AUROC {one.auroc:.2f}"
        ), ratios
    return Row(
        what=case.name,
        value=f"{what} (x {ratios[0]:.2f}), spread x {ratios[1]:.2f}, AUROC {one.auroc:.2f}",
    ), ratios


def blank_row(case: Case, *, bar: bool = False) -> Row:
    """False structure and noise of a case whose truth is empty."""
    area, kept = false_area(case), kept_pixels(case)
    mean, std = case.result.mean[kept], case.result.std[kept]
    value = (
        f"false structure {area:.3%}, level {mean.mean():+.3g}, deviation {mean.std():.3g}, "
        f"spread {std.mean():.3g} {case.result.unit}"
    )
    return Row(
        what=case.name,
        value=value,
        bar="< 0.1 %" if bar else "",
        met=area < BLANK_BAR if bar else None,
    )
