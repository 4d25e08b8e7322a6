"""`tans api`: the warm HTTP service."""

from __future__ import annotations

from tans_core.cli.console import Root, stdout
from tans_core.http.settings import ApiOptions
from tans_core.options import takes


@takes(ApiOptions, command=True)
def api(options: ApiOptions, root: Root = None) -> None:
    """Answer scans and searches over HTTP from the release in production, and fine-tune, until Ctrl-C."""
    options.token()  # checked before the seconds that imports take
    from tans_core.http.server import Serving
    from tans_core.project import find_root

    serving = Serving(find_root(root), options)
    stdout().print(f"{serving.address} is open. Ctrl-C ends it.", markup=False, highlight=False, soft_wrap=True)
    serving.run()
