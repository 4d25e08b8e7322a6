"""Gates: great-expectations suites that data must pass before it goes on, and the one runner that judges them."""

from tans_core.gates.embeddings import check_embeddings
from tans_core.gates.index import check_index
from tans_core.gates.tasks import check_tasks
from tans_core.gates.zoo import check_zoo

__all__ = ["check_embeddings", "check_index", "check_tasks", "check_zoo"]
