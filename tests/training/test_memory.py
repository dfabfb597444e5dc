"""Freed memory stays with the process, so that a step's tensors find their pages there."""

import subprocess
import sys

import pytest

from launching import environment

PAGES = 4 * 2**20 // 4096
SCRIPT = f"""
import resource
import torch
from latentscale.training.memory import keep_freed_memory

torch.set_num_threads(1)
keep_freed_memory()
for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones({2**20 // 4}) for _ in range(4)]  # four of 1 MiB: {PAGES} pages
    del blocks
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 50)
"""


def faults_a_turn(**extra: str) -> float:
    command = [sys.executable, "-c", SCRIPT]
    return float(subprocess.run(command, env=environment(**extra), capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_step_faults_in_no_page_again_unless_the_environment_asks_for_it() -> None:
    assert faults_a_turn() < PAGES / 50
    assert faults_a_turn(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > PAGES / 2
