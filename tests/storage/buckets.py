"""Buckets of object stores, of real servers that real clients speak to, filled with a folder."""

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gcsfs
import pytest
import s3fs
from moto.server import ThreadedMotoServer

S3_SETTINGS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_bucket(folder: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A folder's copy in S3 (moto's server): its URL, and the environment by which a user would reach it."""
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    # buckets of one process are those of all its servers
    bucket = f"shards-{uuid.uuid4().hex}"
    host, port = started.get_host_and_port()
    # one that fsspec has kept of an earlier bucket would still ask that bucket's server
    s3fs.S3FileSystem.clear_instance_cache()
    environment = {**S3_SETTINGS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            files = s3fs.S3FileSystem(skip_instance_cache=True)
            files.mkdir(bucket)
            files.put(str(folder), f"{bucket}/data", recursive=True)
        yield f"s3://{bucket}/data", environment
    finally:
        started.stop()


class _Objects(BaseHTTPRequestHandler):
    """Objects of one folder, by Google's JSON API: their description, or their bytes with alt=media."""

    folder: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = unquote(url.path.rpartition("/o/")[2])
        path = self.folder / name.removeprefix("data/")
        if not name.startswith("data/") or not path.is_file():
            self._send(404, b"{}")
            return
        content, asked = path.read_bytes(), self.headers.get("Range")
        if "alt=media" not in url.query:
            described = {"kind": "storage#object", "name": name, "bucket": "bucket", "size": str(len(content))}
            self._send(200, json.dumps(described).encode())
        elif asked:
            first, last = asked.removeprefix("bytes=").split("-")
            self._send(206, content[int(first) : int(last) + 1])
        else:
            self._send(200, content)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def google_bucket(folder: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A folder as a Google bucket: its URL, and the environment by which gcsfs finds the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Objects,), {"folder": folder}))
    server.daemon_threads = True
    # one that fsspec has kept of an earlier bucket would still ask that bucket's server
    gcsfs.GCSFileSystem.clear_instance_cache()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield "gs://bucket/data", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        server.server_close()
