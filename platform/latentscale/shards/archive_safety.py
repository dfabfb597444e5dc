"""Members of archives that unpacking would take elsewhere, or that are no files: refused wherever archives are read."""

import re
import tarfile


def unsafe_name(name: str) -> str:
    """Why a member's name is refused: one that unpacking would take elsewhere; empty if it is not."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        return "has .. in its name, which leads out of the folder"
    if parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "has an absolute path as its name, which leads out of the folder"
    if "\0" in name:
        return "has a zero byte in its name"
    return ""


def unsafe_kind(member: tarfile.TarInfo) -> str:
    """Why a member of a tar file is refused for what it is; empty if it is not."""
    if member.issym() or member.islnk():
        return "is a link"
    if member.isdev():
        return "is a device or a pipe"
    if member.issparse():
        return "is stored sparsely"
    return ""
