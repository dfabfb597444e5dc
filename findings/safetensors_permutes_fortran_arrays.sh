#!/usr/bin/env bash
# safetensors 0.8.0, NumPy 2.4.6: an array in Fortran order is saved with its values in other places.
#
# safetensors.numpy.save writes the bytes of an array as they lie in memory beside its shape. Of an array in Fortran
# order, such as the transpose of one, np.asfortranarray, or what LAPACK and many image readers return, load then returns
# another array of the same shape: the values are permuted. No error, no warning; save_file is alike. A statistic such as
# the mean or the norm of the tensor stays right, so a check of these does not notice. np.ascontiguousarray before saving
# prevents it. (safetensors.torch refuses tensors that are not contiguous.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
import warnings
from importlib.metadata import version

warnings.simplefilter("error")
import numpy as np
from safetensors.numpy import load, save

print("safetensors", version("safetensors"), "NumPy", np.__version__)
given = np.asfortranarray(np.arange(6.0).reshape(2, 3))
found = load(save({"weight": given}))["weight"]
print("given", given.tolist(), "loaded", found.tolist())
assert found.shape == given.shape
assert found.tolist() == [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
assert np.array_equal(load(save({"weight": np.ascontiguousarray(given)}))["weight"], given)
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
