"""Checks that refuse unsafe archive members: paths that leave the folder, links, devices and sparse files."""

import re
import tarfile


def unsafe_name(name: str) -> str:
    """Return why a member's name is refused, or an empty string if it is safe."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        return "has .. in its name, which leads out of the folder"
    if parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "has an absolute path as its name, which leads out of the folder"
    if "\0" in name:
        return "has a zero byte in its name"
    return ""


def unsafe_kind(member: tarfile.TarInfo) -> str:
    """Return why the type of a tar member is refused, or an empty string if it is accepted."""
    if member.issym() or member.islnk():
        return "is a link"
    if member.isdev():
        return "is a device or a pipe"
    if member.issparse():
        return "is a sparse file"
    return ""
