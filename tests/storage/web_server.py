"""A web server of a folder that counts what it is asked, and can be told to misbehave."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = str
FAULTS = ("", "refuse", "hang", "truncate", "close early", "flip", "forbid")


class WebServer:
    """Serves a folder on the loopback.

    Attributes:
        gets: requests for each file's whole content, by name.
        ranges: requests for parts of each file.
        others: requests that are neither, such as HEAD.
        faults: by name, how often and in which way the file's next answers are wrong; by "" of every file.
        give_ranges: whether parts of files can be had.
        delay_seconds: before every answer.
        most_tars: so many shards are given as a whole, and then nothing at all; None: no limit.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.gets: Counter[str] = Counter()
        self.ranges: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.faults: dict[str, list[Fault]] = {}
        self.give_ranges = True
        self.delay_seconds = 0.0
        self.most_tars: int | None = None
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"web": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Refuse connections from now on."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def fault(self, name: str) -> Fault:
        with self._lock:
            if self.most_tars is not None and sum(self.tars().values()) > self.most_tars:
                return "refuse"
            if self.faults.get(""):
                return self.faults[""][0]
            left = self.faults.get(name)
            return left.pop(0) if left else ""

    def count(self, counter: Counter[str], name: str) -> None:
        with self._lock:
            counter[name] += 1

    def tars(self) -> Counter[str]:
        """How often each shard was asked for as a whole."""
        return Counter({Path(name).name: count for name, count in self.gets.items() if name.endswith(".tar")})


@contextmanager
def serving(folder: Path) -> Iterator[WebServer]:
    server = WebServer(folder)
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.web.count(self.web.others, self.path)
        self._answer(body=False)

    def do_GET(self) -> None:
        in_part = self.web.give_ranges and "Range" in self.headers
        self.web.count(self.web.ranges if in_part else self.web.gets, self.path.lstrip("/"))
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        if self.web.ended.is_set():
            # a connection that was kept open
            self.close_connection = True
            return
        name = self.path.lstrip("/")
        path = self.web.folder / name
        fault = self.web.fault(name) if body else ""
        time.sleep(self.web.delay_seconds)
        if fault == "hang":
            self.web.ended.wait(60)
            self.close_connection = True
            return
        if fault in ("refuse", "forbid"):
            self.send_error(503 if fault == "refuse" else 403)
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        status, start = 200, 0
        if self.web.give_ranges and body and (asked := self.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            start, status, total = int(first), 206, len(content)
            content = content[start : int(last) + 1]
        if fault == "flip":
            # in the padding at the end of a tar
            at = max(len(content) - 700, 0)
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        if fault == "truncate":
            content = content[: len(content) // 2]
        self.send_response(status)
        if self.web.give_ranges:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{total}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        if fault == "close early":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)
