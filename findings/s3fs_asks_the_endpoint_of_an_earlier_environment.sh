#!/usr/bin/env bash
# s3fs 2026.9.0, fsspec 2026.9.0, aiobotocore 3.10.0, moto 5.2.5: after AWS_ENDPOINT_URL has changed, the old server is asked.
#
# botocore reads the endpoint and the credentials from the environment when a client is made. fsspec keeps file systems by
# the arguments of their constructor, and the environment is none: fsspec.url_to_fs("s3://…") after a change of
# AWS_ENDPOINT_URL (or of AWS_PROFILE, or of keys) returns the file system of before. If that server has gone, the error
# comes after seconds of retries and names an endpoint that is nowhere in the environment. A program that checks a
# second store in the same process, or whose short-lived credentials are renewed in the environment, meets it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "moto[server]==5.2.5" s3fs==2026.9.0 fsspec==2026.9.0 aiobotocore==3.10.0
cat > "$folder/see.py" <<'PY'
import logging
import os
import time
from importlib.metadata import version

import fsspec
from botocore.exceptions import EndpointConnectionError
from moto.server import ThreadedMotoServer

logging.disable(logging.CRITICAL)
print(*(f"{name} {version(name)}" for name in ("s3fs", "fsspec", "aiobotocore", "moto")))
os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION="us-east-1")


def serve() -> tuple[ThreadedMotoServer, str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return server, "http://{}:{}".format(*server.get_host_and_port())


first, first_url = serve()
os.environ["AWS_ENDPOINT_URL"] = first_url
files, _ = fsspec.url_to_fs("s3://bucket")
files.mkdir("bucket")
files.pipe("bucket/name", b"content")
second, second_url = serve()
os.environ["AWS_ENDPOINT_URL"] = second_url
fsspec.filesystem("s3", skip_instance_cache=True).pipe("bucket/name", b"of the second")
first.stop()
again, _ = fsspec.url_to_fs("s3://bucket")
assert again is files
began = time.monotonic()
try:
    again.cat_file("bucket/name")
except EndpointConnectionError as error:
    took = time.monotonic() - began
    print(f"after {took:.0f} s:", str(error).replace(first_url, "FIRST").replace(second_url, "SECOND"))
    assert first_url in str(error)
    assert took > 2, took
else:
    raise SystemExit("the new endpoint is asked")
type(files).clear_instance_cache()
assert fsspec.url_to_fs("s3://bucket")[0].cat_file("bucket/name") == b"of the second"
second.stop()
print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
