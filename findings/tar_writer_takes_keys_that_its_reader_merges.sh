#!/usr/bin/env bash
# webdataset 1.0.2: three samples written with TarWriter come back as one, without an error.
#
# TarWriter takes the key "v1.0" of a sample with a field "txt" and writes the member v1.0.txt. WebDataset ends a key at
# the first dot of the name: the key is "v1", and the fields are "0.txt", "1.txt", "2.txt". Neighbouring samples whose keys
# share what precedes the first dot are merged into one sample with other field names. Keys from version numbers, dates,
# decimal numbers or URLs are such keys. Neither the writer nor the reader says a word.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
from importlib.metadata import version

import webdataset as wds

print("webdataset", version("webdataset"))
with wds.TarWriter("shard.tar") as writer:
    for number in range(3):
        writer.write({"__key__": f"v1.{number}", "txt": f"sample {number}"})
samples = list(wds.WebDataset("shard.tar", shardshuffle=False))
fields = [sorted(name for name in sample if not name.startswith("__")) for sample in samples]
print("samples read:", [(sample["__key__"], names) for sample, names in zip(samples, fields)])
assert [sample["__key__"] for sample in samples] == ["v1"]
assert fields == [["0.txt", "1.txt", "2.txt"]]
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
