#!/usr/bin/env bash
# torch 2.13.0 (CPU), onnxscript 0.7.2, onnxruntime 1.32.0: torch.onnx.export drops "+ 1e-8", and only the file returns NaN.
#
# The pixel norm x · rsqrt(mean(x²) + 1e-8) of ProGAN and StyleGAN is exported with the default optimize=True. The
# optimizer takes 1e-8 for zero and removes the addition. Ordinary inputs agree to the last bit, so the usual check of an
# export passes. At a pixel whose features are all zero, as after a ReLU, torch returns 0 and the exported file NaN. With
# optimize=False the file returns 0.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cat > "$folder/see.py" <<'PY'
import logging
import warnings
from importlib.metadata import version

import numpy as np
import onnxruntime
import torch

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


class PixelNorm(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * torch.rsqrt(features.square().mean(1, keepdim=True) + 1e-8)


print("torch", torch.__version__, "onnxscript", version("onnxscript"), "onnxruntime", version("onnxruntime"))
network = PixelNorm().eval()
ordinary, zeros = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 4, 3, 3)
assert not network(zeros).isnan().any()
for optimize in (True, False):
    torch.onnx.export(network, (ordinary,), "norm.onnx", dynamo=True, optimize=optimize, verbose=False)
    session = onnxruntime.InferenceSession("norm.onnx")
    found = [session.run(None, {session.get_inputs()[0].name: x.numpy()})[0] for x in (ordinary, zeros)]
    difference, nans = abs(found[0] - network(ordinary).numpy()).max(), int(np.isnan(found[1]).sum())
    print(f"optimize={optimize}: ordinary inputs differ by {difference:.1e}; zeros become {nans} NaN of {zeros.numel()}")
    assert difference < 1e-6
    assert nans == (zeros.numel() if optimize else 0)
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
