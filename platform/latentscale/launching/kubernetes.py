"""The entry point of a pod: what the platform says of its place becomes a node launcher's options.

    python launchers/kubernetes.py [options] recipes/pvdgan.py [key=value …]

Reads JOB_COMPLETION_INDEX of an Indexed Job with LATENTSCALE_NODES, LATENTSCALE_PROCESSES_PER_NODE and
LATENTSCALE_MAIN_ADDRESS (LATENTSCALE_MAIN_PORT, LATENTSCALE_MAX_RESTARTS) of its manifest, or the PET_* of Kubeflow
Trainer. Options say what the environment does not; where two differ it is refused.
"""

import os
import sys

from latentscale.launching.names import wait_for_name
from latentscale.launching.node import exit_with, make_parser, start
from latentscale.launching.options import make_options
from latentscale.launching.platforms import count_processes, said_by

VARIABLES = {
    "nodes": ("LATENTSCALE_NODES", "PET_NNODES"),
    "node_rank": ("JOB_COMPLETION_INDEX", "PET_NODE_RANK"),
    "processes_per_node": ("LATENTSCALE_PROCESSES_PER_NODE", "PET_NPROC_PER_NODE"),
    "main_address": ("LATENTSCALE_MAIN_ADDRESS", "PET_MASTER_ADDR"),
    "main_port": ("LATENTSCALE_MAIN_PORT", "PET_MASTER_PORT"),
    "max_restarts": ("LATENTSCALE_MAX_RESTARTS",),
}


def run() -> int:
    """Translate, wait for node 0's name, launch; returns the exit status.

    Raises:
        UserError: for what must be mended first.
    """
    parser = make_parser("python launchers/kubernetes.py", __doc__ or "")
    parser.add_argument(
        "--dns-seconds", type=float, default=300.0, metavar="S", help="to wait for node 0's name (default 300)"
    )
    given = vars(parser.parse_args())
    options = make_options(said_by(VARIABLES, given, os.environ, count_processes))
    if options.nodes > 1 and not options.dry_run:
        try:
            wait_for_name(options.main_address, given["dns_seconds"])
        except TimeoutError as error:
            print(f"launcher of node {options.node_rank}: {error}", file=sys.stderr)
            return 1
    return start(options)


if __name__ == "__main__":
    exit_with(run)
