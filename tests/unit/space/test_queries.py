import numpy as np
import pytest

from tans_core.space.queries import query_statistics, sampled_statistics


def images(count: int = 30, classes: int = 4, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = rng.normal(size=(count, width)) + 3 * rng.normal(size=(classes, width))[labels]
    return features.astype(np.float32), labels


def slow_statistics(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """By loops over columns and classes, in double precision."""
    wide = features.astype(np.float64)
    classes = sorted(set(labels.tolist()))
    mean, deviation, between = [], [], []
    for column in wide.T:
        mean.append(sum(column) / len(column))
        deviation.append((sum((value - mean[-1]) ** 2 for value in column) / len(column)) ** 0.5)
        prototypes = [float(np.mean([v for v, k in zip(column, labels, strict=True) if k == name])) for name in classes]
        middle = sum(prototypes) / len(prototypes)
        between.append((sum((value - middle) ** 2 for value in prototypes) / len(prototypes)) ** 0.5)
    return np.array([*mean, *deviation, *between, np.log(len(classes))])


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_statistics_are_mean_spread_spread_of_prototypes_and_classes(classes: int) -> None:
    features, labels = images(classes=classes)
    found = query_statistics(features, labels)
    assert found.shape == (3 * 6 + 1,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_statistics(features, labels), rtol=1e-5, atol=1e-6)


def test_order_of_the_images_and_names_of_the_classes_do_not_matter() -> None:
    features, labels = images()
    order = np.random.default_rng(1).permutation(len(labels))
    whole = query_statistics(features, labels)
    np.testing.assert_allclose(query_statistics(features[order], labels[order]), whole, atol=1e-6)
    np.testing.assert_array_equal(query_statistics(features, 100 - 7 * labels), query_statistics(features, -labels))


def test_tasks_with_the_same_images_and_other_classes_are_told_apart() -> None:
    features, labels = images()
    shuffled = np.random.default_rng(1).permutation(labels)
    found, other = query_statistics(features, labels), query_statistics(features, shuffled)
    np.testing.assert_array_equal(found[:12], other[:12])
    assert (found[12:18] > 1.5 * other[12:18]).mean() > 0.5


def test_one_image_has_no_spread() -> None:
    found = query_statistics(np.ones((1, 3), dtype=np.float32), np.array([5]))
    assert found.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]


def test_samples_follow_from_their_seed_and_differ_from_each_other() -> None:
    features, labels = images()
    first, second, other = (sampled_statistics(features, labels, 5, 12, seed) for seed in (0, 0, 1))
    assert first.shape == (5, 19)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) == 5
    # More samples change none of those before.
    np.testing.assert_array_equal(sampled_statistics(features, labels, 9, 12, 0)[:5], first)


def test_samples_scatter_around_the_whole_and_less_so_the_larger_they_are() -> None:
    features, labels = images(count=200)
    whole = query_statistics(features, labels)[:6]
    spreads = []
    for size in (10, 100):
        means = sampled_statistics(features, labels, 200, size, 0)[:, :6]
        np.testing.assert_allclose(means.mean(axis=0), whole, atol=0.3)
        spreads.append(float(means.std(axis=0).mean()))
    assert spreads[1] < 0.5 * spreads[0]


def test_task_with_fewer_images_than_a_sample_takes_is_sampled_all_the_same() -> None:
    features, labels = images(count=3)
    assert np.isfinite(sampled_statistics(features, labels, 4, 100, 0)).all()
