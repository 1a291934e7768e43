"""Peaks belong to the piece of work that made them, and too much memory is an exception."""

import resource

import pytest
import torch

from llama_bench.measure import memory

MIB = 2**20
CPU = torch.device("cpu")


def touch(mebibytes: int) -> None:
    """More than 32 MiB are always mapped anew (glibc, M_MMAP_THRESHOLD); less may come out of what
    the tests before this one freed and the process still holds."""
    assert mebibytes > 32
    torch.ones(mebibytes * MIB // 4)


@pytest.fixture
def host():
    meter = memory.HostMemory()
    if meter.source != "VmHWM":
        pytest.skip("this kernel does not let a process reset its highest resident set")
    return meter


def test_each_piece_of_work_has_its_own_peak(host):
    touch(96)
    large = host.peaks()["peak_bytes"]
    host.restart()
    touch(48)
    small = host.peaks()["peak_bytes"]
    assert 90 * MIB < large < 150 * MIB
    assert 44 * MIB < small < 84 * MIB


def test_without_a_reset_only_a_new_record_is_known():
    meter = memory.HostMemory(can_reset=False)
    assert meter.source == "ru_maxrss"
    meter.restart()
    assert meter.peaks() == {"peak_bytes": None}
    above = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    touch(above + 32)  # more than this process ever held, whatever it holds now
    assert meter.peaks()["peak_bytes"] >= above * MIB


def test_more_memory_than_there_is_is_an_exception():
    """Without the bound the kernel promises all of this, as none of it is touched."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if memory.available_bytes() is None:
        pytest.skip("this system does not say how much memory is left")
    part = memory.available_bytes() // 8
    held = []
    with pytest.raises(RuntimeError) as caught, memory.bounded(CPU):
        for _ in range(12):
            held.append(torch.empty(part, dtype=torch.uint8))
    assert memory.is_out_of_memory(caught.value)
    assert len(held) >= 4
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("size", [(2**62,), (2**40, 2**40)], ids=["refused", "overflow"])
def test_absurd_sizes_are_out_of_memory(size):
    with pytest.raises(Exception) as caught:
        torch.empty(size, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)


class Compilation(RuntimeError):
    """As torch.compile raises it: what happened is in `inner_exception`."""

    def __init__(self, inner: Exception):
        super().__init__(f"backend='inductor' raised:\n{type(inner).__name__}: {inner}")
        self.inner_exception = inner


def caused_by(error: Exception) -> RuntimeError:
    outer = RuntimeError("a layer failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        Compilation(MemoryError()),
        Compilation(torch.OutOfMemoryError("Tried to allocate 2.00 GiB")),
        caused_by(caused_by(torch.OutOfMemoryError("Tried to allocate 2.00 GiB"))),
    ],
    ids=["cuda", "triton", "cublas", "cudnn", "compiling", "compiling on a gpu", "caused"],
)
def test_a_gpus_words_and_what_lies_inside_an_error_count(error):
    assert memory.is_out_of_memory(error)
    assert not memory.is_out_of_memory(Compilation(ValueError("no kernel")))


def test_other_errors_are_not():
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not memory.is_out_of_memory(caught.value)
