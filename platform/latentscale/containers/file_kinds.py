"""What a file is by its first bytes, where a source expects another: compressed tars, other archives, and pickles."""

import os
import shlex
from itertools import islice
from pathlib import Path

from latentscale.wording import escaped

COMPRESSED_TARS = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4",
)  # fmt: skip
"""Endings of the names of compressed tars, in small letters."""

START_BYTES = 6
PICKLE = "a pickle, which is never opened because it may run any code: {what} by np.savez(FILE, images=…, labels=…)"
_BY_PICKLE = "load it where you trust it, and save its arrays"
_PROGRAMS = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
}
_ARCHIVES = {b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
_MAX_FILES_SEEN = 1000


def decompressor(start: bytes) -> str:
    """The program that decompresses a file of this beginning; empty if it is not compressed."""
    return next((program for magic, program in _PROGRAMS.items() if start.startswith(magic)), "")


def archive_kind(start: bytes) -> str:
    """``zip``, ``7z`` or ``rar`` by a file's beginning; else empty."""
    return next((kind for magic, kind in _ARCHIVES.items() if start.startswith(magic)), "")


def decompress_command(path: Path, program: str) -> str:
    """A shell command that writes the tar of a compressed file beside it, whatever the file is called."""
    ending = next((ending for ending in COMPRESSED_TARS if path.name.lower().endswith(ending)), "")
    plain = f"{path.name[: -len(ending)]}.tar" if ending else f"{path.stem}-decompressed.tar"
    return f"{program} < {shlex.quote(str(path))} > {shlex.quote(str(path.with_name(plain)))}"


def pickle_refusal(path: Path) -> str:
    """What a file is, why it is not read, and how to write it anew, if it is a pickle of Python or ``torch.save``."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError:
        return ""
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return PICKLE.format(what=_BY_PICKLE)
    # a zip of torch.save begins with its pickle
    if archive_kind(start) == "zip" and b"data.pkl" in start[:300]:
        return PICKLE.format(what="load it by torch.load(FILE, weights_only=True), and save its tensors' .numpy()")
    return ""


def files_that_are_not_read(root: Path) -> str:
    """What a folder without images holds instead, with the remedy: compressed tars or pickles; else empty."""
    files = (Path(folder, name) for folder, _, names in os.walk(root) for name in sorted(names))
    for path in islice(files, _MAX_FILES_SEEN):
        shown = escaped(str(path))
        if path.name.lower().endswith(COMPRESSED_TARS) and path.is_file():
            return f"compressed tars: decompress them first, such as {compressed_remedy(path)}"
        if path.is_file() and (refusal := pickle_refusal(path)):
            return f"{shown}, {refusal}"
    return ""


def compressed_remedy(path: Path) -> str:
    """The command for a file that is called like a compressed tar."""
    try:
        with path.open("rb") as stream:
            program = decompressor(stream.read(START_BYTES))
    except OSError:
        program = ""
    return decompress_command(path, program or "gunzip")
