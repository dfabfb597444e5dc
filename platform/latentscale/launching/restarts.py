"""How often a run's processes were started before, as who starts them says."""

import os
from collections.abc import Mapping

RESTARTS_VARIABLE = "LATENTSCALE_RESTART_COUNT"
"""Set by the node launcher for its processes, and by whoever restarts node launchers for these."""
_TORCHELASTIC = "TORCHELASTIC_RESTART_COUNT"


def times_restarted(environment: Mapping[str, str] = os.environ) -> int:
    """0 at a run's first start; where it is more, the same command is repeated and the run continues."""
    said = [environment.get(name, "0") for name in (RESTARTS_VARIABLE, _TORCHELASTIC)]
    return max(int(count) if count.isdigit() else 0 for count in said)
