#!/usr/bin/env bash
# torch 2.13.0 (CPU): to construct an optimizer imports 800 modules, the compiler and SymPy among them.
#
# `import torch` takes care not to import torch._dynamo and SymPy. The first torch.optim.SGD(...) of a process does: its
# constructor calls add_param_group, whose decorator (torch/_compile.py) imports torch._dynamo at the first call in order
# to keep the function out of compiled graphs. Nothing is compiled.
# It takes as long as `import torch` or longer, which a profile of a training's start shows as time in "optimizer". A
# second optimizer of any kind costs microseconds. Processes that are forked after a first optimizer do not pay again.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
import sys
import time

began = time.perf_counter()
import torch

imported = time.perf_counter() - began
print("torch", torch.__version__, f"imported in {imported:.2f} s")
weights = [torch.nn.Parameter(torch.zeros(2))]
assert "torch._dynamo" not in sys.modules and "sympy" not in sys.modules
added, seconds = [], []
for make in (torch.optim.SGD, torch.optim.Adam):
    modules, began = len(sys.modules), time.perf_counter()
    make(weights, lr=0.1)
    added.append(len(sys.modules) - modules)
    seconds.append(time.perf_counter() - began)
    print(f"{make.__name__}(...): {added[-1]} more modules, {seconds[-1]:.5f} s")
assert added[0] > 500 and added[1] == 0, added
assert seconds[0] > 100 * seconds[1], seconds
assert "torch._dynamo" in sys.modules and "sympy" in sys.modules
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
