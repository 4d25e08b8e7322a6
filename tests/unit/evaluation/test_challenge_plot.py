from __future__ import annotations

from io import BytesIO

from PIL import Image

from tans_core.evaluation.challenge import RECALL, REGRET, REGRET_3, TAU, Decision, Measure, TaskResult
from tans_core.evaluation.challenge_plot import draw_challenge
from tans_core.evaluation.plots import to_png


def decision(names: list[str]) -> Decision:
    rows = tuple(
        TaskResult(name, 6, {TAU: 0.9 - 0.05 * index, REGRET: 1.0}, {TAU: 0.7 - 0.1 * (index % 5), REGRET: 4.0})
        for index, name in enumerate(names)
    )
    measures = (
        Measure(TAU, 0.69, 0.31, 0.97),
        Measure(REGRET, 1.6, 8.4, 1.0),
        Measure(REGRET_3, 0.5, 2.0, 0.8),
        Measure(RECALL, 0.92, 0.12),
    )
    reason = "Worse: weighted tau fell from 0.69 to 0.31, the margin is 0.05 (mean over 24 tasks)."
    return Decision(False, reason, "180 trials of networks that both know, on 24 tasks", measures, rows)


def test_picture_takes_any_name_and_any_number_of_tasks() -> None:
    for names in (["only"], [f"a $task$ of {number} <img>" for number in range(30)]):
        picture = Image.open(
            BytesIO(to_png(draw_challenge(decision(names), "20260101T000000-abc", "20260102T000000-def")))
        )
        assert picture.size == (1344, 896)


def test_same_decision_gives_the_same_picture() -> None:
    pictures = [to_png(draw_challenge(decision(["a", "b"]), "one", "two")) for _ in range(2)]
    assert pictures[0] == pictures[1]
