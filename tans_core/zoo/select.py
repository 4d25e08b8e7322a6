"""Selects the members of a supernet that become networks of the zoo: those that extend the accuracy-cost front.

The selection is greedy by expected improvement, as for the paper's efficient zoo (Jeong et al., 2021). The cheapest and
the most expensive candidate are measured first. The next is always the one with the largest expected gain in the best
accuracy over all costs, given the measurements so far.

Axes: n candidates, T width of a topology code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_LENGTH = 0.5
"""Distance of codes over which accuracies vary, with each column at unit weight; from trials across tasks
(`space.prior`)."""
_NOISE = 0.1
"""Variance of a measurement's noise, relative to the variance between networks."""
_BEYOND = 1.1
"""End of the cost axis: beyond the most expensive candidate at 1, whose accuracy would otherwise not count."""


def extend_front(codes: Floats, macs_m: Sequence[float], measure: Callable[[int], float], count: int) -> list[int]:
    """Choose and measure candidates one by one.

    Args:
        codes: (n, T) topology codes.
        macs_m: (n,) cost of an image in millions.
        measure: returns the validation accuracy of the candidate with this index; called once for each chosen one.
        count: number to choose, at least 2; all if there are fewer.

    Returns:
        Indices in the order of choice.
    """
    costs = unit_costs(macs_m)
    points = _scaled(codes)
    measured: dict[int, float] = {}
    for index in dict.fromkeys((int(costs.argmin()), int(costs.argmax()))):
        measured[index] = measure(index)
    while len(measured) < min(count, len(costs)):
        rest = [index for index in range(len(costs)) if index not in measured]
        mean, deviation = _expected(points, costs, measured, rest)
        front = _front(costs, measured)
        gains = [
            expected_gain(float(costs[index]), float(mean[position]), float(deviation[position]), front)
            for position, index in enumerate(rest)
        ]
        chosen = rest[int(np.argmax(gains))]
        measured[chosen] = measure(chosen)
    return list(measured)


def unit_costs(macs_m: Sequence[float]) -> Floats:
    """Return costs on a logarithmic axis, the cheapest at 0 and the most expensive at 1."""
    logs: Floats = np.log(np.asarray(macs_m, dtype=np.float64))
    span = float(logs.max() - logs.min())
    return (logs - logs.min()) / span if span > 0 else np.zeros_like(logs)


def area_below(costs: Floats, accuracies: Sequence[float]) -> float:
    """Return the mean, over the cost axis, of the best accuracy at or below each cost; 0 below the cheapest.

    Args:
        costs: (n,) from `unit_costs`.
        accuracies: (n,) in 0..1.
    """
    return sum(width * level for width, level in _steps(_front(costs, dict(enumerate(accuracies))), 0.0)) / _BEYOND


def expected_gain(cost: float, mean: float, deviation: float, front: Sequence[tuple[float, float]]) -> float:
    """Return the expected increase of the area below the front by a candidate.

    Args:
        cost: of the candidate.
        mean, deviation: of the normal distribution predicted for its accuracy.
        front: costs and accuracies of the measured front, both rising.
    """
    from scipy.stats import norm

    gain = 0.0
    for width, level in _steps(front, cost):
        standardised = (mean - level) / max(deviation, 1e-9)
        gain += width * deviation * (standardised * float(norm.cdf(standardised)) + float(norm.pdf(standardised)))
    return gain


def pareto_front(costs: Sequence[float] | Floats, accuracies: Sequence[float]) -> list[int]:
    """Return the indices of candidates better than all others of equal or lower cost, cheapest first; ties: the first.

    Args:
        costs: (n,) on any axis.
        accuracies: (n,).
    """
    front: list[int] = []
    for index in sorted(range(len(accuracies)), key=lambda one: (costs[one], -accuracies[one])):
        if not front or accuracies[index] > accuracies[front[-1]]:
            front.append(index)
    return front


def _front(costs: Floats, measured: Mapping[int, float]) -> list[tuple[float, float]]:
    measured_costs, accuracies = costs[list(measured)].tolist(), list(measured.values())
    return [(measured_costs[index], accuracies[index]) for index in pareto_front(measured_costs, accuracies)]


def _steps(front: Sequence[tuple[float, float]], start: float) -> list[tuple[float, float]]:
    """Return (width, best accuracy) of each interval of the cost axis from `start` on."""
    edges = [cost for cost, _ in front] + [_BEYOND]
    steps = [(max(0.0, min(edges[0], _BEYOND) - start), 0.0)]
    for (cost, level), end in zip(front, edges[1:], strict=True):
        steps.append((max(0.0, end - max(cost, start)), level))
    return [step for step in steps if step[0] > 0]


def _scaled(codes: Floats) -> Floats:
    deviation = codes.std(axis=0)
    varying = deviation > 1e-9
    scaled: Floats = (codes[:, varying] - codes[:, varying].mean(axis=0)) / deviation[varying]
    return scaled / max(1.0, float(np.sqrt(scaled.shape[1])))


def _expected(
    points: Floats, costs: Floats, measured: Mapping[int, float], rest: Sequence[int]
) -> tuple[Floats, Floats]:
    """Predict mean and deviation of the accuracies of `rest`: a line over costs plus a Gaussian process."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    values, measured_costs = np.array(list(measured.values())), costs[list(measured)]
    trend = np.polynomial.Polynomial.fit(measured_costs, values, 1 if np.ptp(measured_costs) else 0)
    scale = max(float(values.std()), 0.01)
    process = GaussianProcessRegressor(RBF(_LENGTH), alpha=_NOISE, optimizer=None)
    process.fit(points[list(measured)], (values - trend(measured_costs)) / scale)
    mean, deviation = process.predict(points[list(rest)], return_std=True)
    return trend(costs[list(rest)]) + scale * mean, scale * deviation
