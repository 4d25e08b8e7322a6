"""Which members of a supernet become networks of the zoo: those that push the front of accuracy against cost outward.

Greedily by expected improvement, as the paper's efficient zoo is chosen (Jeong et al., 2021): after the cheapest and the dearest
candidate, the next one measured is that which, by what was measured so far, raises most what can be had at each cost.

Axes: n candidates, T width of a topology code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_LENGTH = 0.5
"""Distance of codes, a column of unit weight, over which accuracies differ: as trials across tasks found it (`space.prior`)."""
_NOISE = 0.1
"""Variance of a measured accuracy beside that of networks."""
_BEYOND = 1.1
"""Where the axis of costs ends: a little beyond the dearest candidate at 1, whose accuracy would else be worth nothing."""


def extend_front(codes: Floats, macs_m: Sequence[float], measure: Callable[[int], float], count: int) -> list[int]:
    """Choose and measure candidates one by one.

    Args:
        codes: (n, T) topology codes.
        macs_m: (n,) cost of an image in millions.
        measure: gives a candidate's accuracy on the validation split, by its index; called once for each chosen one.
        count: how many are chosen, at least 2; all where there are fewer.

    Returns:
        Their indices in the order in which they were chosen.
    """
    costs = unit_costs(macs_m)
    points = _scaled(codes)
    found: dict[int, float] = {}
    for index in dict.fromkeys((int(costs.argmin()), int(costs.argmax()))):
        found[index] = measure(index)
    while len(found) < min(count, len(costs)):
        rest = [index for index in range(len(costs)) if index not in found]
        mean, deviation = _expected(points, costs, found, rest)
        gains = [
            expected_gain(float(costs[index]), float(mean[place]), float(deviation[place]), _front(costs, found))
            for place, index in enumerate(rest)
        ]
        chosen = rest[int(np.argmax(gains))]
        found[chosen] = measure(chosen)
    return list(found)


def unit_costs(macs_m: Sequence[float]) -> Floats:
    """Return costs on a logarithmic axis, the cheapest at 0 and the dearest at 1."""
    logs: Floats = np.log(np.asarray(macs_m, dtype=np.float64))
    span = float(logs.max() - logs.min())
    return (logs - logs.min()) / span if span > 0 else np.zeros_like(logs)


def area_below(costs: Floats, accuracies: Sequence[float]) -> float:
    """Return the mean, over the axis of costs, of the best accuracy that can be had at most at that cost; 0 below the cheapest.

    Args:
        costs: (n,) from `unit_costs`.
        accuracies: (n,) in 0..1.
    """
    return sum(width * level for width, level in _steps(_front(costs, dict(enumerate(accuracies))), 0.0)) / _BEYOND


def expected_gain(cost: float, mean: float, deviation: float, front: Sequence[tuple[float, float]]) -> float:
    """Return by how much a candidate is expected to raise the area below the front.

    Args:
        cost: of the candidate.
        mean, deviation: of its accuracy, as it is expected: normal.
        front: costs and accuracies of what was measured, both rising.
    """
    from scipy.stats import norm

    gain = 0.0
    for width, level in _steps(front, cost):
        place = (mean - level) / max(deviation, 1e-9)
        gain += width * deviation * (place * float(norm.cdf(place)) + float(norm.pdf(place)))
    return gain


def pareto_front(costs: Sequence[float] | Floats, accuracies: Sequence[float]) -> list[int]:
    """Return the indices of those that are better than all that cost no more, cheapest first; of equals the first.

    Args:
        costs: (n,) on any axis.
        accuracies: (n,).
    """
    front: list[int] = []
    for index in sorted(range(len(accuracies)), key=lambda one: (costs[one], -accuracies[one])):
        if not front or accuracies[index] > accuracies[front[-1]]:
            front.append(index)
    return front


def _front(costs: Floats, found: Mapping[int, float]) -> list[tuple[float, float]]:
    places, accuracies = costs[list(found)].tolist(), list(found.values())
    return [(places[index], accuracies[index]) for index in pareto_front(places, accuracies)]


def _steps(front: Sequence[tuple[float, float]], start: float) -> list[tuple[float, float]]:
    """Cut the axis of costs from `start` on into widths of equal best accuracy."""
    edges = [cost for cost, _ in front] + [_BEYOND]
    steps = [(max(0.0, min(edges[0], _BEYOND) - start), 0.0)]
    for (cost, level), end in zip(front, edges[1:], strict=True):
        steps.append((max(0.0, end - max(cost, start)), level))
    return [step for step in steps if step[0] > 0]


def _scaled(codes: Floats) -> Floats:
    deviation = codes.std(axis=0)
    told = deviation > 1e-9
    scaled: Floats = (codes[:, told] - codes[:, told].mean(axis=0)) / deviation[told]
    return scaled / max(1.0, float(np.sqrt(scaled.shape[1])))


def _expected(points: Floats, costs: Floats, found: Mapping[int, float], rest: Sequence[int]) -> tuple[Floats, Floats]:
    """Return mean and deviation of the accuracies of `rest`: a line over the costs, and a Gaussian process around it."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    values, at = np.array(list(found.values())), costs[list(found)]
    line = np.polynomial.Polynomial.fit(at, values, 1 if np.ptp(at) else 0)
    scale = max(float(values.std()), 0.01)
    process = GaussianProcessRegressor(RBF(_LENGTH), alpha=_NOISE, optimizer=None)
    process.fit(points[list(found)], (values - line(at)) / scale)
    mean, deviation = process.predict(points[list(rest)], return_std=True)
    return line(costs[list(rest)]) + scale * mean, scale * deviation
