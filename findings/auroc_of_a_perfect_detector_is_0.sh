#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.13.0 (CPU): whether a score is put through a sigmoid is decided anew at every update.
#
# BinaryAUROC applies a sigmoid when a score lies outside [0, 1], as its documentation says. It looks at the scores of one
# update() at a time. Errors of reconstruction as an out-of-distribution score: in-distribution images score .80 to .95,
# the others 1.01 to 1.05, so every threshold between separates them. Given in one update the area is 1. Given batch by
# batch, as an evaluation loop does, the first batch keeps its scores and the second is squashed to .73 to .74: the area of
# the same scores is 0, without a warning. Metrics of more classes that share this code are alike.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
cat > "$folder/see.py" <<'PY'
import warnings
from importlib.metadata import version

warnings.simplefilter("error")
import torch
from torchmetrics.classification import BinaryAUROC

print("torchmetrics", version("torchmetrics"), "torch", torch.__version__)
scores = torch.tensor([0.80, 0.90, 0.95, 1.01, 1.02, 1.05])
outside = torch.tensor([0, 0, 0, 1, 1, 1])
areas = {}
for batch in (6, 3):
    metric = BinaryAUROC()
    for part, labels in zip(scores.split(batch), outside.split(batch)):
        metric.update(part, labels)
    areas[batch] = metric.compute().item()
    print(f"batches of {batch}: AUROC {areas[batch]}")
assert areas == {6: 1.0, 3: 0.0}
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
