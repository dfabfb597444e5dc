#!/usr/bin/env bash
# datasets 5.2.0, pyarrow 26.0.1, Pillow 13.0.0: to_parquet of an image folder writes no image, only paths of this machine.
#
# load_dataset("imagefolder") followed by to_parquet() ends well and writes one row per image. Its column "image" has the
# type struct<bytes, path>, as the parquet files of the Hub. Here bytes is null in every row and path is the absolute path
# of the source file: on another machine, or once the folder has moved, the file holds nothing. On this machine it reads
# back as if all were well. (push_to_hub embeds the images; datasets.table.embed_table_storage does so by hand.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
import os
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HOME="cache", HF_HUB_OFFLINE="1")
import datasets
import pyarrow.parquet
from PIL import Image

print("datasets", version("datasets"), "pyarrow", version("pyarrow"), "Pillow", version("pillow"))
folder = Path("pets").absolute()
(folder / "train" / "cat").mkdir(parents=True)
for number in range(3):
    Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "train" / "cat" / f"{number}.png")
datasets.disable_progress_bars()
images = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
images.to_parquet("pets.parquet")
rows = pyarrow.parquet.read_table("pets.parquet").to_pylist()
print(len(rows), "rows; the first:", {**rows[0]["image"], "path": rows[0]["image"]["path"].replace(str(folder), "/…/pets")})
assert len(rows) == 3
assert all(row["image"]["bytes"] is None for row in rows)
assert all(row["image"]["path"].startswith(str(folder)) for row in rows)
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
