"""A period's section has cost and failures of its run."""

from __future__ import annotations

from dataclasses import replace

from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.watch.pulse import RunStatus as Progress


def test_cost_and_failures_are_those_of_the_run_and_a_price_that_is_missing_is_said(told):
    progress = Progress("r", "2023-01", "published", gpu_hours=3.5, cpu_hours=40.25, cost=1234.5, currency="<EUR>")
    run = {"chips": {"computed": 1200, "failed": 40}, "seconds": {"publish": 1.0, "chips": 3.0}}
    run["failed"] = {f"32648/0_{i:02d}": "<b>no pixels</b>" for i in range(40)}
    page = to_page(replace(told, periods=(replace(told.periods[0], progress=progress, run=run),)))
    assert "1,234.50 &lt;EUR&gt;, by costs.prices for GPUs and cores" in page
    assert "3.50 GPU-hours, 40.25 core-hours" in page
    assert "1,200 computed, 0 reused, 0 skipped, 40 failed" in page
    assert page.count("&lt;b&gt;no pixels&lt;/b&gt;") == 30
    assert "And 10 more chips." in page
    assert page.index(">chips</th><td>3.00</td><td>75.0 %") < page.index(">publish</th><td>1.00</td><td>25.0 %")
    unpriced = replace(told.periods[0], progress=replace(progress, cost=0.0))
    assert "not known: the configuration has no prices" in to_page(replace(told, periods=(unpriced,)))
