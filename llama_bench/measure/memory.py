"""How much memory a piece of work took at most, and what to do before there is none left.

On a GPU torch counts its own allocations. On a CPU the kernel counts resident pages: Linux keeps
the highest count of a process (VmHWM in /proc/self/status) and forgets it when '5' is written to
/proc/self/clear_refs (proc_pid_clear_refs(5)), so that each piece of work has a peak of its own.
Two things spoil that number if nothing is done. The C library keeps freed pages for later, so
they are given back (`malloc_trim`) before a peak is started anew. And the kernel promises more
memory than there is, then kills whoever uses it; a limit on the data segment (RLIMIT_DATA,
getrlimit(2)) turns that end into an exception that can be written down.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import psutil
import torch

_REFUSALS = (
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",
    "bad_alloc",
    "could not create a memory object",  # oneDNN
    "out of memory",  # "CUDA error: ...", "Triton Error [CUDA]: ..."
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
    "size calculation overflowed",  # more bytes than 64 bits count
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, says that memory ran out, on whichever
    device."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(at, RuntimeError) and any(text in str(at) for text in _REFUSALS):
            return True
        at = getattr(at, "inner_exception", None) or at.__cause__  # the first: torch.compile's
    return False


class HostMemory:
    """Peak resident set of this process above `baseline_bytes`, what it was at construction.

    `source` says how peaks are read. `VmHWM`: the kernel's mark, reset at each `restart`.
    `ru_maxrss`, where that reset is not to be had: the mark of the whole process, which tells a
    peak only where it rises above all that came before; elsewhere the peak is None.
    """

    def __init__(self, can_reset: bool = True):
        self.source = "VmHWM" if can_reset and _reset_mark() else "ru_maxrss"
        release()
        self.baseline_bytes = psutil.Process().memory_info().rss
        self.restart()

    def restart(self) -> None:
        release()
        if self.source == "VmHWM":
            _reset_mark()
        self._before = _mark_of_process()

    def leave_out_all_but(self, held: int) -> None:
        """What loading `held` bytes of weights has left behind, such as imports, is no model's."""
        release()
        self.baseline_bytes = psutil.Process().memory_info().rss - held
        self.restart()

    def peaks(self) -> dict[str, int | None]:
        """`peak_bytes` since the last restart, without the baseline."""
        if self.source == "VmHWM":
            mark = _status_bytes("VmHWM")
        else:
            mark = _mark_of_process()
            mark = mark if mark > self._before else None
        return {"peak_bytes": None if mark is None else max(0, mark - self.baseline_bytes)}


class GpuMemory:
    """Peak of torch's allocations on the current GPU, and of what it reserved to make them."""

    source = "torch.cuda.max_memory_allocated"

    def __init__(self):
        self.baseline_bytes = torch.cuda.memory_allocated()
        self.restart()

    def restart(self) -> None:
        release()
        torch.cuda.reset_peak_memory_stats()

    def leave_out_all_but(self, held: int) -> None:
        """torch counts what it holds itself: loading leaves nothing behind."""

    def peaks(self) -> dict[str, int | None]:
        return {
            "peak_bytes": torch.cuda.max_memory_allocated() - self.baseline_bytes,
            "reserved_bytes": torch.cuda.max_memory_reserved(),
        }


def meter(device: torch.device) -> HostMemory | GpuMemory:
    """Made before the model is, so that the baseline is the interpreter's and the libraries'."""
    gc.collect()
    gc.freeze()  # what was imported is no garbage: collecting is 100 times faster without it
    return GpuMemory() if device.type == "cuda" else HostMemory()


def release() -> None:
    """Give freed memory back: Python's cycles, torch's GPU blocks, the C library's pages."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def bounded(device: torch.device):
    """Within it, asking for more host memory than the machine has left is an exception.

    No bound where the system does not say what is left, or how much this process holds; nor for
    work on a GPU, which says itself when it is full.
    """
    room, held = available_bytes(), _status_bytes("VmData")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if device.type != "cpu" or room is None or held is None:
        yield
        return
    given = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held + room, *given]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def available_bytes() -> int | None:
    """What can still be had without swapping: of the machine and of this process's cgroup."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return max(0, min([free * 1024, *_cgroup_rooms()]))


def _cgroup_rooms() -> list[int]:
    """Limit less use of each memory cgroup that this process is in, version 1 and 2."""
    rooms = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, limit, used = "", "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                root, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            top = Path("/sys/fs/cgroup") / root
            own = top / path.lstrip("/")
            for group in (own, *own.parents):
                with contextlib.suppress(OSError, ValueError):  # "max": no limit here
                    rooms.append(int((group / limit).read_text()) - int((group / used).read_text()))
                if group == top:
                    break
    return rooms


def _reset_mark() -> bool:
    """Forget the highest resident set so far; False where the kernel does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _status_bytes("VmHWM") is not None


def _status_bytes(key: str) -> int | None:
    """A size from /proc/self/status, which gives kibibytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


def _mark_of_process() -> int:
    """Highest resident set since the process began; macOS counts it in bytes, Linux in KiB."""
    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024
