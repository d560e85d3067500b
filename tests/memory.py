"""Where the files of a run lie: in memory where there is room, and else where temporary files always lie.

A database that syncs to a disk waits as long as the disk likes: a run on a busy machine was once red because it stood still
for five seconds. The product's settings stay as they are (`synchronous=FULL`, its busy time); what the operating system
answers to them at once, a `kill -9` cannot tell from a disk. Whoever sets TMPDIR is obeyed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
#: a whole run has never held more than a fourth of this; a container often gives 64 MB
ROOM = 4 * 1024**3


def has_room() -> bool:
    """Whether there is a file system in memory that this run may fill, and memory behind it."""
    if not os.access(MEMORY, os.W_OK | os.X_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        return False
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024 > 2 * ROOM


def use() -> None:
    """From here on temporary files of this process and of those it starts lie in memory, if they can."""
    if "TMPDIR" not in os.environ and has_room():
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None
