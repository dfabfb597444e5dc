"""A disk of its own that can be full: a tmpfs of a few kilobytes."""

import os
import subprocess
from pathlib import Path


class SmallDisk:
    """A mounted tmpfs.

    Attributes:
        path: where.

    Raises:
        PermissionError: this process may not mount.
    """

    def __init__(self, path: Path, size_bytes: int = 2**20) -> None:
        path.mkdir()
        self.path = path
        self._mount(f"size={size_bytes}")

    def _mount(self, options: str) -> None:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            raise PermissionError(mounted.stderr.strip())

    def resize(self, size_bytes: int) -> None:
        """Make room, or take it away."""
        self._mount(f"remount,size={size_bytes}")

    def fill(self, leave_bytes: int) -> Path:
        """A file that takes all room but some."""
        ballast = self.path / "ballast"
        status = os.statvfs(self.path)
        ballast.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - leave_bytes)))
        return ballast

    def unmount(self) -> None:
        """It is gone, with all that it held."""
        subprocess.run(["umount", "-l", str(self.path)], check=False)
