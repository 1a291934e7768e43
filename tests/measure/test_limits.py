"""The device's limits are counted work over kept seconds, and vendor figures are dense ones."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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


def test_the_work_is_what_it_is_counted_as():
    """By torch's own count of operations, and by the bytes that really change."""
    product = limits.Product(96, torch.float32, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        product.work()
    assert counter.get_total_flops() == product.operations == 2 * 96**3
    copy = limits.Copy(1000, torch.device("cpu"))
    copy._to.zero_()
    copy.work()
    assert int(copy._to.count_nonzero()) * 2 == copy.bytes_moved


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
