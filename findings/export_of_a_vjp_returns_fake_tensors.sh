#!/usr/bin/env bash
# torch 2.13.0 (CPU): torch.export of a module that uses torch.func.vjp succeeds, and the program returns FakeTensors.
#
# A module whose forward differentiates a convolution with torch.func.vjp (the input gradient of a critic, an exact R1) is
# exported without an error. To run the exported program on a real tensor gives no error either: it returns a FakeTensor,
# which has a shape and no values. Shape checks pass, and the first place that needs a value raises, or prints
# "FakeTensor". Tracing with make_fx first and exporting the result gives the true values.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
import logging
import warnings

import torch
from torch._subclasses import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
print("torch", torch.__version__)


class InputGradient(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 2, 3).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, pull = torch.func.vjp(lambda y: self.layer(y).tanh().sum((1, 2, 3)), x)
        return pull(torch.ones_like(out))[0]


model, x = InputGradient().eval(), torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
found = torch.export.export(model, (x,)).module()(x)
print("exported:", type(found).__name__, tuple(found.shape))
assert isinstance(found, FakeTensor)
assert found.shape == x.shape
traced = torch.export.export(make_fx(model)(x), (x,)).module()(x)
print("traced with make_fx, then exported: off by", float((traced - model(x)).abs().max()))
assert not isinstance(traced, FakeTensor)
assert torch.equal(traced, model(x))
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
