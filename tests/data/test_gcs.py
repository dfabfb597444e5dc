"""Shards in a Google bucket: the real client against a server of the few requests that reading makes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from latentscale.data.shards import ShardedDataset
from latentscale.data.storage import StorageOptions
from latentscale.errors import UserError

pytest.importorskip("gcsfs", reason="gcsfs is not installed: pip install -e '.[gcs]'")


class _Bucket(BaseHTTPRequestHandler):
    """Objects of one folder, by the JSON API: their description, or their bytes with alt=media."""

    folder: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = unquote(url.path.rpartition("/o/")[2])
        path = self.folder / name.removeprefix("numbered/")
        if not name.startswith("numbered/") or not path.is_file():
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


@pytest.fixture
def bucket(numbered, monkeypatch):
    handler = type("Handler", (_Bucket,), {"folder": numbered(10, 4).path})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield "gs://bucket/numbered"
    server.shutdown()
    server.server_close()


def test_samples_are_those_of_the_local_copy_and_what_is_missing_is_named(bucket, numbered, tmp_path):
    local = numbered(10, 4)
    options = StorageOptions(tmp_path / "cache", 2**20, 5.0, 5.0)
    remote = ShardedDataset.open(bucket, options)
    assert remote.fingerprint == local.fingerprint
    assert list(remote.read_sparse([(2, 1)])) == [local.read(2, 1)]
    for shard, member in ((0, 3), (2, 1)):
        assert remote.read(shard, member) == local.read(shard, member)
    with pytest.raises(UserError, match=r"gs://bucket/nothing/dataset\.json cannot be read"):
        ShardedDataset.open("gs://bucket/nothing", options)
