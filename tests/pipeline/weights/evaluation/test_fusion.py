"""The fusion is judged against every classical method."""

from __future__ import annotations

import pytest
import torch

from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import FusionConfig
from difffusr.pipeline.weights.evaluation.fusion import CONSISTENT, ESTIMATE, FUSED, evaluate_fusion
from difffusr.pipeline.weights.evaluation.report import write


def test_fusion_is_judged_beside_every_classical_method(scene, tmp_path):
    torch.manual_seed(0)
    network = build_fusion(FusionConfig("folded", 8, 1, 1))
    found = evaluate_fusion(network, [scene], {"weights": "tiny"})
    assert [table.title for table in found.tables] == ["10 m bands", "20 m bands"]
    for table in found.tables:
        assert {"Brovey", "IHS", "PCA", "Gram-Schmidt", "GSA", "HPF", "SFIM", "ATWT", "MTF-GLP", "MTF-GLP-HPM"} <= set(
            table.mean
        )
        # a network that knows nothing yet is the bicubic enlargement
        assert table.mean[FUSED]["ergas"] == pytest.approx(table.mean["bicubic"]["ergas"], rel=1e-3)
        assert table.mean[CONSISTENT]["ergas"] < table.mean[FUSED]["ergas"]
        assert table.mean[ESTIMATE]["ergas"] < 0.3 * table.mean["bicubic"]["ergas"]
    margins = found.extra["against_the_best"]["20 m bands"]["guided by RGB"]
    assert margins["ergas_relative"] > 0  # of mixtures, the classical methods know more
    grids = found.extra["gridness"]["20 m bands"]
    assert set(grids) == {*found.tables[1].mean, "truth"}
    assert all("4" in band for band in grids["truth"].values())
    assert all(row["grid"] >= 0 for row in found.tables[1].mean.values())
    write(found, tmp_path)
