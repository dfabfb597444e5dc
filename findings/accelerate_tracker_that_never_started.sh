#!/usr/bin/env bash
# Accelerate 1.15.0, TensorBoard 2.20.0, torch 2.13.0 (CPU): a tracker whose folder cannot be made stays registered.
#
# Accelerator.init_trackers("tensorboard") raises FileExistsError, as it should, when the place of its folder is taken
# by a file. The tracker that never started is nevertheless in accelerator.trackers. A program that ends tidily, with
# accelerator.end_training() in a `finally`, then gets
#
#     AttributeError: 'TensorBoardTracker' object has no attribute 'writer'
#
# and that, not the FileExistsError, is what its user reads last: the name of the folder and the reason are gone from
# the final line. Clearing accelerator.trackers before end_training() gives the first error back.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0 tensorboard==2.20.0
cat > "$folder/see.py" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

from accelerate import Accelerator

project = Path(sys.argv[1])
project.mkdir()
(project / "tensorboard").write_text("a file where the tracker wants a folder")


def end_tidily(clear: bool) -> BaseException:
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=str(project))
    try:
        try:
            accelerator.init_trackers("tensorboard")
        finally:
            registered = len(accelerator.trackers)
            if clear:
                accelerator.trackers.clear()
            accelerator.end_training()
    except Exception as error:
        print(f"trackers registered after the failure: {registered}; raised: {type(error).__name__}: {error}")
        return error
    raise SystemExit("init_trackers no longer fails")


print("accelerate", version("accelerate"), "tensorboard", version("tensorboard"), "torch", version("torch"))
masked, first = end_tidily(clear=False), end_tidily(clear=True)
assert isinstance(masked, AttributeError), masked
assert "writer" in str(masked)
assert isinstance(masked.__context__, FileExistsError), masked.__context__
assert isinstance(first, FileExistsError), first
print("as described")
PY
CUDA_VISIBLE_DEVICES="" "$folder/venv/bin/python" "$folder/see.py" "$folder/project"
