"""One node of a Slurm job: what the job step says of its place becomes a node launcher's options.

    srun --ntasks-per-node=1 python -m latentscale.launching.slurm --main-address HOST recipes/pvdgan.py [key=value …]

Reads SLURM_NNODES and SLURM_NODEID; processes per node are by default the node's GPUs in the job. A requeued job, by
SLURM_RESTART_COUNT, continues its run although the command says run.restart=true. See launchers/slurm/train.sbatch.
"""

import os

from latentscale.errors import UserError
from latentscale.launching.node import exit_with, make_parser, start
from latentscale.launching.options import make_options
from latentscale.launching.platforms import count_processes, said_by

VARIABLES = {"nodes": ("SLURM_NNODES",), "node_rank": ("SLURM_NODEID",)}


def run() -> int:
    """Translate and launch; returns the exit status.

    Raises:
        UserError: for what must be mended first.
    """
    parser = make_parser("python -m latentscale.launching.slurm", __doc__ or "")
    said = said_by(VARIABLES, vars(parser.parse_args()), os.environ, count_processes)
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS")
    if tasks and said.get("nodes") is not None and tasks != str(said["nodes"]):
        raise UserError(f"the step has {tasks} tasks on {said['nodes']} nodes: one a node starts all processes there")
    gpus = os.environ.get("SLURM_GPUS_ON_NODE", "")
    if said.get("processes_per_node") is None and gpus.isdigit() and int(gpus) > 0:
        said["processes_per_node"] = int(gpus)
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0")
    return start(make_options(said), int(requeued) if requeued.isdigit() else 0)


if __name__ == "__main__":
    exit_with(run)
