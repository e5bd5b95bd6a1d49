"""How many threads are right here: what the scheduler, the cpuset and the cgroup let this process use."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import StateError, raise_all
from rnncore.runtime.session.process_fork import watch

_CGROUP = Path("/sys/fs/cgroup")
_FORKED = (
    "this process was forked from one whose models share a pool of threads, which stayed behind: fork before the first "
    "model is loaded, use processes started with 'spawn', or do not share threads"
)


class _Sharing:
    """The pool of threads that models share: its size, None as long as there is none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size: int | None = None
        self.forked = False

    def after_process_fork(self) -> None:
        self.lock = threading.Lock()
        self.forked = self.size is not None


_sharing = _Sharing()
watch(_sharing)


def usable_processors(cgroup: Path = _CGROUP) -> int:
    """Processors that this process may keep busy: at least 1, at most those it may run on, at most its cgroup's quota.

    A container with a quota of 1.5 processors on a machine of 64 gets 2, where ``os.cpu_count()`` says 64.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quotas = [quota for quota in (_quota(folder) for folder in _own_folders(cgroup)) if quota is not None]
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas)]))


def share_threads(count: int | None = None) -> None:
    """Make the pool of threads that the models of this process share, instead of some for each model.

    count: its size, None for :func:`usable_processors`.

    To be called before models are loaded, all of them with ``threads="shared"``: once there is a shared pool,
    onnxruntime makes no other.  The size cannot be changed (StateError).  A process forked afterwards cannot run models
    (StateError): fork first.
    """
    if count is not None:
        raise_all(count_problems("count", count, instead=", or None"))
    with _sharing.lock:
        if _sharing.forked:
            raise StateError(_FORKED)
        if _sharing.size is not None:
            if count is None or count == _sharing.size:
                return
            raise StateError(f"the shared pool has {_sharing.size} threads already: call share_threads once, at first")
        import onnxruntime

        size = usable_processors() if count is None else count
        onnxruntime.set_global_thread_pool_sizes(size, 1)
        _sharing.size = size


def check_threads(threads: int | None) -> None:
    """Raise StateError unless a session with so many threads (None: the shared ones) can be made in this process."""
    if _sharing.forked:
        raise StateError(_FORKED)
    if threads is not None and _sharing.size is not None:
        raise StateError(
            f"the models of this process share a pool of threads, a model with {threads} of its own cannot be loaded any "
            "more: load it with threads='shared', or before the first model that shares"
        )


def _own_folders(cgroup: Path) -> list[Path]:
    """The folders of the cgroup of this process and of those around it: the tightest quota counts."""
    folders = [cgroup, cgroup / "cpu"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        inner = (cgroup / "cpu" if controllers else cgroup) / path.strip("/")
        while inner not in folders and inner != inner.parent:
            folders.append(inner)
            inner = inner.parent
    return folders


def _quota(folder: Path) -> float | None:
    """Processors that a cgroup may use (version 2, else version 1); None without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None
