"""One script per stage of `dvc.yaml`. Importing this package makes imports faster in the process of a stage."""

from tans_core.imports import import_lightning_lightly
from tans_core.runtime import collect_rarely

collect_rarely()
import_lightning_lightly()
