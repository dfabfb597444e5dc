"""How often a run was restarted, as reported by whoever starts its processes."""

import os
import re
from collections.abc import Mapping

RESTARTS_VARIABLE = "LATENTSCALE_RESTART_COUNT"
"""The node launcher sets it for its processes, and whoever restarts node launchers sets it for the launchers."""
_TORCHELASTIC = "TORCHELASTIC_RESTART_COUNT"


def restart_count(environment: Mapping[str, str] = os.environ) -> int:
    """0 at a run's first start; if it is more, the same command was repeated and the run continues."""
    counts = [environment.get(name, "0") for name in (RESTARTS_VARIABLE, _TORCHELASTIC)]
    return max(int(count) if re.fullmatch("[0-9]{1,9}", count) else 0 for count in counts)
