"""What must hold of the models' speed on any machine: ratios within one run. `make bench` prints the figures."""

from __future__ import annotations

import model_speed
import pytest
import torch


def lowered_cpu() -> bool:
    """Whether this processor multiplies bfloat16 itself: without, lower precision saves nothing."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@pytest.mark.bench
@pytest.mark.skipif(not lowered_cpu(), reason="this processor does not multiply bfloat16")
def test_on_a_cpu_the_reference_is_half_as_fast_again_as_a_plain_run_and_equal():
    cases = [
        model_speed.case_of("published", "reference", precision, "eager", 1, 48)
        for precision in ("float32", "bfloat16")
    ]
    (exact, lowered), _ = model_speed.compare_with_plain(cases, torch.device("cpu"))
    assert exact["difference_max"] < 1e-3  # reflectance
    assert lowered["difference_mean"] < 2e-3
    assert exact["speed_up"] > 1
    assert lowered["speed_up"] >= 1.5


@pytest.mark.bench
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_a_quarter_of_its_peak_and_four_times_a_plain_run():
    tables = dict(model_speed.on_gpu())
    by_batch = tables["published sizes by batch"]
    assert max(row["share_of_peak"] for row in by_batch) >= 0.25
    compared = next(rows for title, rows in tables.items() if "plain run" in title)
    assert max(row["speed_up"] for row in compared) >= 4
    assert all(row["difference_mean"] < 2e-3 for row in compared)
