"""The device's limits are rates that a bare loop reaches too, and vendor figures are dense ones."""

import json
import time

import pytest
import torch

from llama_bench.fields import UserError
from llama_bench.measure import limits
from llama_bench.measure.probing import devices, vendor
from llama_bench.specs import LimitsSpec


def run(tmp_path, **asked) -> dict:
    result = limits.run(LimitsSpec(device="cpu", **asked), tmp_path, [], lambda *where: None)
    json.dumps(result, allow_nan=False)  # a record can be written
    return result


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    return run(tmp_path_factory.mktemp("limits"))


def test_rates_are_work_over_the_fastest_of_the_kept_repeats(result):
    width = result["matrix"]["shape"][0]
    assert result["matrix"]["shape"] == [width] * 3
    for part in ("matrix", "copy", "launch"):
        assert len(result[part]["seconds"]) >= limits.REPEATS
        assert sum(result[part]["seconds"]) >= limits.SECONDS
    fastest = {part: min(result[part]["seconds"]) for part in ("matrix", "copy", "launch")}
    assert result["matrix_flops_per_second"] == 2 * width**3 / fastest["matrix"]
    assert result["copy_bytes_per_second"] == result["copy"]["bytes_moved"] / fastest["copy"]
    assert result["launch_seconds"] == fastest["launch"] / 1000


def test_a_bare_loop_reaches_them_too(result):
    """Twice as fast, or half, would be another kind of work. Both take the best of many."""
    width, size = result["matrix"]["shape"][0], result["copy"]["bytes_moved"] // 2
    left, right = torch.randn(width, width), torch.randn(width, width)
    block, other = torch.ones(size // 4), torch.ones(size // 4)
    for key, work, amount in (
        ("matrix_flops_per_second", lambda: left @ right, 2 * width**3),
        ("copy_bytes_per_second", lambda: other.copy_(block), 2 * size),
    ):
        taken = []
        for _ in range(15):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
        assert 0.5 < amount / min(taken) / result[key] < 2


def test_bfloat16_is_multiplied_in_bfloat16(tmp_path):
    product = limits.Product(64, limits.DTYPES["bfloat16"], torch.device("cpu"))
    product.work()
    assert product._out.dtype == torch.bfloat16
    torch.testing.assert_close(product._out, product._left @ product._right)


def test_facts_of_the_device(result):
    assert result["device"]["kind"] == "cpu"
    assert result["device"]["memory_bytes"] > 2**28
    assert result["device"]["threads"] == torch.get_num_threads()
    assert result["vendor"] is None, "no vendor's figure is known for a CPU"


@pytest.mark.parametrize(
    ("name", "precision", "flops", "bandwidth"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.5e12, 3.35e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756.5e12, 2.0e12),
        ("NVIDIA H200", "bfloat16", 989.5e12, 4.8e12),
        ("NVIDIA A100-SXM4-40GB", "float32", 19.5e12, 1.555e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12, 2.039e12),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312e12, 1.935e12),
        ("NVIDIA A10", "bfloat16", 125e12, 0.6e12),
        ("NVIDIA L40S", "float32", 91.6e12, 0.864e12),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2e12, 1.008e12),
        ("Tesla V100-SXM2-16GB", "float32", 15.7e12, 0.9e12),
        ("Tesla T4", "bfloat16", None, 0.32e12),
    ],
)
def test_vendor_figures_are_dense(name, precision, flops, bandwidth):
    found = vendor.peaks(name, precision)
    assert found["flops_per_second"] == flops
    assert found["bytes_per_second"] == bandwidth
    assert found["source"]


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA A800-SXM4-80GB", "NVIDIA GeForce RTX 3090 Ti", "NVIDIA GH200 480GB", None),
        *("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA A10G", "AMD EPYC"),
    ],
)
def test_another_device_has_no_vendor_figure(name):
    assert vendor.peaks(name, "float32") is None


def test_names_are_whole_words():
    assert devices.is_called("NVIDIA H100 80GB HBM3", "h100")
    assert devices.is_called("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB")
    assert not devices.is_called("NVIDIA A100-SXM4-80GB", "A10")
    assert not devices.is_called("NVIDIA GH200 480GB", "H200")


def test_another_gpu_than_asked_for_is_named():
    with pytest.raises(UserError, match=r"probe\.device: H200 is asked for, this machine has .*H1"):
        devices._matching(["NVIDIA H100 PCIe", "NVIDIA A10"], "H200")
    assert devices._matching(["NVIDIA A100-PCIE-40GB", "NVIDIA A10"], "A10") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"probe\.device: H200 is asked for"):
        limits.run(LimitsSpec(device="cuda", device_name="H200"), tmp_path, [], print)
