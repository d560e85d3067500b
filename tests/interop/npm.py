"""npm's packages for all tests: `node/package-lock.json`, installed as it stands beside it."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).with_name("node")
OLDEST = 18
INSTALL_S, VERSION_S = 60, 30


@functools.cache
def why_not() -> str | None:
    """Install from the lock file, once; the reason to skip, or None when it is ready."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return "no Node.js with npm found (Debian: nodejs, npm)"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=True).stdout
    if int((re.match(r"v(\d+)", version) or ["", "0"])[1]) < OLDEST:
        return f"Node.js {version.strip()} is too old: 18 is wanted"
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = FOLDER / "node_modules" / ".installed-lock"
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another pytest worker may be installing
        if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
            return None
        try:
            done = subprocess.run(
                [npm, "ci"], cwd=FOLDER, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"npm ci did not end within {INSTALL_S} s"
        if done.returncode:
            return f"npm ci failed: {done.stderr.strip()[-400:]}"
        stamp.write_text(wanted, encoding="ascii")
    return None
