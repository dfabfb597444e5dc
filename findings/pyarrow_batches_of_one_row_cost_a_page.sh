#!/usr/bin/env bash
# pyarrow 26.0.1: iter_batches(batch_size=1) needs memory for 1024 rows, where a file was written as usual.
#
# The writer looks at the size of a page (data_page_size, 1 MiB by default) only after each write_batch_size rows, 1024 by
# default. Images of 100 KB make pages of a hundred MB, and a page is read as a whole: the first row of a file of 900 images
# costs as much memory as all, however small batch_size is. Written with write_batch_size=8, the same rows are read for a
# fraction of it. row_group_size=100 helps too. The readers of such datasets cannot choose: the size of pages is the file's.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
cat > "$folder/write.py" <<'PY'
import os

import pyarrow as pa
import pyarrow.parquet as pq

print("pyarrow", pa.__version__)
table = pa.table({"image": [os.urandom(100_000) for _ in range(900)]})
for name, options in (("usual", {}), ("small", {"write_batch_size": 8})):
    # without a dictionary, as for images, of which no two are equal
    pq.write_table(table, f"{name}.parquet", use_dictionary=False, compression="none", **options)
PY
cat > "$folder/read.py" <<'PY'
import resource
import sys

import pyarrow.parquet as pq

file = pq.ParquetFile(sys.argv[1], pre_buffer=False, buffer_size=65536)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batch = next(file.iter_batches(1, use_threads=False))
assert batch.num_rows == 1 and len(batch.column(0)[0].as_py()) == 100_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
PY
cd "$folder"
"$folder/venv/bin/python" write.py
usual=$("$folder/venv/bin/python" read.py usual.parquet)
small=$("$folder/venv/bin/python" read.py small.parquet)
echo "the first row of 90 MB of rows: $usual KiB of memory; written with write_batch_size=8: $small KiB"
[ "$usual" -gt 80000 ] && [ "$small" -lt 20000 ] && echo "as described"
