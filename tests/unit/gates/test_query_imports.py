"""The gate of a search judges the scan's report, and knows nothing else of how it was made."""

from __future__ import annotations

import grimp


def test_report_is_all_that_the_gate_of_a_search_imports_of_tasks() -> None:
    graph = grimp.build_graph("tans_core", cache_dir=None)
    gate = {one for one in graph.modules if one.startswith("tans_core.gates.query")}
    assert len(gate) == 3
    imported = {other for one in gate for other in graph.find_modules_directly_imported_by(one)}
    assert {one for one in imported if one.startswith("tans_core.tasks")} == {"tans_core.tasks.report"}
