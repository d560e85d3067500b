"""What the machine says: CPU time and memory of a tree of processes, versions, load. Linux only (/proc)."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from importlib.metadata import version
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name; the name may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """A process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
            except OSError:
                continue  # gone meanwhile
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(root: int) -> float:
    """CPU seconds, user and system, of a tree; what dead children used has gone over to their parents."""
    total = 0
    for pid in tree(root):
        try:
            total += sum(int(value) for value in _fields(pid)[11:15])
        except OSError:
            continue
    return total / TICKS


def memory_mib(root: int) -> list[float]:
    """Resident MiB of each process of a tree, largest first."""
    found = []
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        found += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
    return sorted(found, reverse=True)


def pin(core: int) -> None:
    """Keep this process, and what it starts, on one core; a machine with one core has no choice."""
    cores = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


def yardstick_us() -> float:
    """CPU µs of a fixed piece of pure Python, best of five: tells runs on a busy machine apart."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        sum(i * i % 7 for i in range(100_000))
        best = min(best, time.process_time() - began)
    return best * 1e6


def describe() -> dict[str, str]:
    """Processor, Python, libraries."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "Machine": f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "SQLite": sqlite3.sqlite_version,
        "Libraries": ", ".join(
            f"{n} {version(n)}" for n in ("flask", "sqlalchemy", "psycopg", "authlib", "joserfc", "granian")
        ),
    }
