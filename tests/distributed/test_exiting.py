"""A process exits with its status, after its exit handlers and with all its output; also two that have used DDP."""

import sys
from pathlib import Path

from launching import ROOT, Processes, launch_command, overrides

ALONE = """
import atexit, sys
from latentscale.distributed.exiting import exit_process
atexit.register(lambda: print("at exit"))
print("first", end="")
sys.stderr.write("second")
exit_process(3)
"""

BESIDE_ANOTHER = """
import torch
from latentscale.distributed.exiting import exit_process
from latentscale.distributed.engines import make_accelerator
accelerator = make_accelerator(60)
assert accelerator.num_processes == 2
model = accelerator.prepare_model(torch.nn.Linear(3, 3))
model(torch.ones(2, 3)).sum().backward()
accelerator.end_training()
print("done", flush=True)
exit_process()
print("not reached", flush=True)
"""

AFTER_TRAINING = f"""
import gc, runpy, sys, weakref
import torch.distributed as dist
from latentscale.training import processes
joined, end = [], processes._end_training
def spy(*arguments):
    joined.append(weakref.ref(dist.group.WORLD))
    end(*arguments)
processes._end_training = spy
def look(status=0):
    gc.collect()
    assert not dist.is_initialized()
    print("kept" if joined[0]() is not None else "freed", flush=True)
    leave(status)
import latentscale.recipe as recipe
leave, recipe.exit_process = recipe.exit_process, look
sys.argv[0] = {str(ROOT / "recipes" / "pvdgan.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_output_and_exit_handlers_come_before_the_exit(processes: Processes) -> None:
    finished = processes.run([sys.executable, "-c", ALONE], timeout_seconds=60)
    assert (finished.code, finished.out, finished.err) == (3, "firstat exit\n", "second")


def test_processes_with_a_process_group_exit_successfully(processes: Processes, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(BESIDE_ANOTHER)
    command = [part for part in launch_command(2, script) if not part.startswith("distributed.")]
    finished = processes.run(command, timeout_seconds=120, PYTHONPATH=str(ROOT / "platform"))
    assert finished.code == 0, finished.err
    # two processes may interleave their output
    assert "".join(finished.out.split()) == "donedone"


def test_the_process_group_is_not_freed_at_the_end_of_a_training(processes: Processes, tmp_path: Path) -> None:
    """Freeing it joins gloo's threads with the GIL held, for which one of them may wait."""
    script = tmp_path / "script.py"
    script.write_text(AFTER_TRAINING)
    command = launch_command(2, script)
    finished = processes.run([*command, f"run.dir={tmp_path / 'run'}", *overrides(training__steps=1)])
    assert finished.code == 0, finished.err
    assert finished.out.count("kept\n") == 2
    assert "freed" not in finished.out
