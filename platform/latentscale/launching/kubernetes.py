"""The entry point of a pod: turns the pod's environment into a node launcher's options.

    python launchers/kubernetes.py [options] recipes/pvdgan.py [key=value …]

Reads JOB_COMPLETION_INDEX of an Indexed Job, and LATENTSCALE_NODES, LATENTSCALE_PROCESSES_PER_NODE and
LATENTSCALE_MAIN_ADDRESS (optionally LATENTSCALE_MAIN_PORT, LATENTSCALE_MAX_RESTARTS) from its manifest, or the PET_*
variables of Kubeflow Trainer. Options give what the environment does not. Two sources that differ are an error.
"""

import os
import sys

from latentscale.launching.dns import wait_for_hostname
from latentscale.launching.node import exit_with, launch_node, make_parser
from latentscale.launching.node_options import make_options
from latentscale.launching.platforms import count_processes, options_from_environment

VARIABLES = {
    "nodes": ("LATENTSCALE_NODES", "PET_NNODES"),
    "node_rank": ("JOB_COMPLETION_INDEX", "PET_NODE_RANK"),
    "processes_per_node": ("LATENTSCALE_PROCESSES_PER_NODE", "PET_NPROC_PER_NODE"),
    "main_address": ("LATENTSCALE_MAIN_ADDRESS", "PET_MASTER_ADDR"),
    "main_port": ("LATENTSCALE_MAIN_PORT", "PET_MASTER_PORT"),
    "max_restarts": ("LATENTSCALE_MAX_RESTARTS",),
}


def run() -> int:
    """Read the options, wait for node 0's host name, launch, and return the exit status.

    Raises:
        UserError: an error that the user must fix.
    """
    parser = make_parser("python launchers/kubernetes.py", __doc__ or "")
    parser.add_argument(
        "--dns-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="wait this long for node 0's host name to resolve (default 300)",
    )
    given = vars(parser.parse_args())
    options = make_options(options_from_environment(VARIABLES, given, os.environ, count_processes))
    if options.nodes > 1 and not options.dry_run:
        try:
            wait_for_hostname(options.main_address, given["dns_seconds"])
        except TimeoutError as error:
            print(f"launcher of node {options.node_rank}: {error}", file=sys.stderr)
            return 1
    return launch_node(options)


if __name__ == "__main__":
    exit_with(run)
