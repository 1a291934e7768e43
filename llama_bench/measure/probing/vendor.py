"""What vendors promise for devices they name: dense arithmetic and memory bandwidth.

Many published peaks are those of sparse arithmetic (two of four weights zero), twice as high and
out of reach of any dense model; the figures here are dense, without the boost of FP16 accumulation,
and `float32` is that of ordinary cores, not of TF32. A precision that the device lacks is None,
and so is every device that is not in the table.
"""

from __future__ import annotations

from typing import Any

from llama_bench.measure.gpu import is_called

_H100 = "NVIDIA H100 Tensor Core GPU Datasheet"
_H200 = "NVIDIA H200 Tensor Core GPU Datasheet"
_A100 = "NVIDIA A100 Tensor Core GPU Datasheet"
_V100 = "NVIDIA V100 Tensor Core GPU Datasheet"
_ADA = "NVIDIA Ada GPU Architecture whitepaper, appendix A"
_AMPERE = "NVIDIA Ampere GA102 GPU Architecture whitepaper, appendix A"

# words of the name, all of which must be there; 10^12 float32 and bfloat16 operations a second,
# 10^9 bytes a second; the first line that fits counts
_KNOWN: tuple[tuple[tuple[str, ...], float, float | None, float, str], ...] = (
    (("H200", "NVL"), 60.0, 835.5, 4800.0, _H200),
    (("H200",), 67.0, 989.5, 4800.0, _H200),
    (("H100", "PCIe"), 51.0, 756.5, 2000.0, _H100),
    (("H100", "NVL"), 60.0, 835.5, 3900.0, _H100),
    (("H100", "HBM3"), 67.0, 989.5, 3350.0, _H100),
    (("A100", "80GB", "PCIe"), 19.5, 312.0, 1935.0, _A100),
    (("A100", "80GB"), 19.5, 312.0, 2039.0, _A100),
    (("A100", "40GB"), 19.5, 312.0, 1555.0, _A100),
    (("L40S",), 91.6, 362.05, 864.0, "NVIDIA L40S Datasheet"),
    (("L4",), 30.3, 121.0, 300.0, "NVIDIA L4 Tensor Core GPU Datasheet"),
    (("A10",), 31.2, 125.0, 600.0, "NVIDIA A10 Tensor Core GPU Datasheet"),
    (("RTX", "4090"), 82.6, 165.2, 1008.0, _ADA),
    (("RTX", "3090"), 35.6, 71.0, 936.0, _AMPERE),
    (("T4",), 8.1, None, 320.0, "NVIDIA T4 Tensor Core GPU product brief PB-09256-001"),
    (("V100S",), 16.4, None, 1134.0, _V100),
    (("V100", "PCIE"), 14.0, None, 900.0, _V100),
    (("V100",), 15.7, None, 900.0, _V100),
)
_OTHER = ("Laptop", "Ti", "SUPER", "D", "MIG", "vGPU")  # other chips, or parts of one


def peaks(name: str | None, precision: str) -> dict[str, Any] | None:
    """`flops_per_second` (None where the device lacks the precision), `bytes_per_second` of its
    memory, and `source`; None for a device that is not known."""
    if name is None or any(is_called(name, word) for word in _OTHER):
        return None
    for words, float32, bfloat16, gigabytes, source in _KNOWN:
        if all(is_called(name, word) for word in words):
            teraflops = float32 if precision == "float32" else bfloat16
            return {
                "flops_per_second": None if teraflops is None else teraflops * 1e12,
                "bytes_per_second": gigabytes * 1e9,
                "source": source,
            }
    return None
