"""One node of a Slurm job: turns the job step's environment into a node launcher's options.

    srun --ntasks-per-node=1 python -m latentscale.launching.slurm --main-address HOST recipes/pvdgan.py [key=value …]

Reads SLURM_NNODES and SLURM_NODEID. By default it starts one process per GPU that the job has on the node. A requeued
job (SLURM_RESTART_COUNT) continues its run even if the command has run.restart=true. See launchers/slurm/train.sbatch.
"""

import os
import re

from latentscale.errors import UserError
from latentscale.launching.node import exit_with, launch_node, make_parser
from latentscale.launching.node_options import make_options
from latentscale.launching.platforms import count_processes, options_from_environment

VARIABLES = {"nodes": ("SLURM_NNODES",), "node_rank": ("SLURM_NODEID",)}


def run() -> int:
    """Read the options, launch, and return the exit status.

    Raises:
        UserError: an error that the user must fix.
    """
    parser = make_parser("python -m latentscale.launching.slurm", __doc__ or "")
    options = options_from_environment(VARIABLES, vars(parser.parse_args()), os.environ, count_processes)
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS")
    if tasks and options.get("nodes") is not None and tasks != str(options["nodes"]):
        raise UserError(
            f"the step has {tasks} tasks on {options['nodes']} nodes: run one task per node, which starts all"
            " processes there"
        )
    gpus = os.environ.get("SLURM_GPUS_ON_NODE", "")
    if options.get("processes_per_node") is None and re.fullmatch("[0-9]{1,9}", gpus) and int(gpus) > 0:
        options["processes_per_node"] = int(gpus)
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0")
    return launch_node(make_options(options), int(requeued) if re.fullmatch("[0-9]{1,9}", requeued) else 0)


if __name__ == "__main__":
    exit_with(run)
