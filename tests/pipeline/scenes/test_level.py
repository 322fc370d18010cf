"""The level of an item is judged by all that states it: L1C is never taken for L2A."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stac_items import DROP, collection_file, config, every_item, made_item, needs_items

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.level import other_level
from difffusr.pipeline.scenes.search import find_scenes

URI = "S2A_MSI{}_20230601T102031_N0509_R065_T32TNT_20230601T150000.SAFE"


@pytest.mark.parametrize(
    "said",
    [
        {"s2:product_type": "S2MSI1C"},
        {"product:type": "S2MSI1C"},
        {"s2:product_uri": URI.format("L1C")},
        {"sentinel:product_id": URI.format("L1C").removesuffix(".SAFE")},
        {"processing:level": "L1C"},
        {"processing:level": "L1"},
        {"processing:level": "Level-1C"},
        {"processingLevel": "S2MSI1C"},
        {"s2:granule_id": "S2A_OPER_MSI_L1C_TL_2APS_20230601T150000_A041483_T32TNT_N05.09"},
        {"title": URI.format("L1C")},
        {"product:type": "GRD"},
        {"s2:product_type": ["S2MSI2A"]},
    ],
)
def test_a_contradiction_is_left_out(tmp_path: Path, said: dict[str, Any]) -> None:
    one = made_item(1, **said)
    with pytest.raises(CatalogError, match=r"1 with contradicting levels .*S2A_32TNT_20230601_0_L2A"):
        find_scenes(config(items=collection_file(tmp_path, [one])))


@pytest.mark.parametrize(
    ("said", "item_id"),
    [
        ({"s2:product_type": "S2MSI1C"}, "S2A_32TNT_20230601"),
        ({"processing:level": "L1C", "s2:product_uri": URI.format("L1C")}, "a_32TNT"),
        ({}, "S2A_32TNT_20230601_0_L1C"),
        ({}, "S2A_MSIL1C_20230601T102031_N0509_R065_T32TNT_20230601T150000"),
        ({"s2:product_uri": URI.format("L1C")}, "x_32TNT"),
    ],
)
def test_level_1c_that_does_not_contradict_itself_is_another_product(
    tmp_path: Path, said: dict[str, Any], item_id: str
) -> None:
    one = made_item(1, **{"s2:product_uri": DROP, **said})
    one.update(id=item_id, collection="sentinel-2")
    with pytest.raises(CatalogError, match=r"1 items seen: 1 of level 1C$"):
        find_scenes(config(items=collection_file(tmp_path, [one]), collection=None))


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"s2:product_type": "S2MSI2A"},
        {"product:type": "S2MSI2Ap"},
        {"processing:level": "L2A"},
        {"processing:level": "L2"},
        {"processing:level": "level-2A"},
        {"processing:level": "Level2A"},
        {"title": "Sentinel-2 L2A of a lake"},
        {"s2:granule_id": "L2A_T32TNT_A041483_20230601T102031"},
    ],
)
def test_level_2a_is_taken_however_it_is_written(said: dict[str, Any]) -> None:
    assert other_level(made_item(1, **said)) is None
    bare = made_item(1, **{"s2:product_uri": DROP, **said})
    bare.update(id="x_32TNT", collection="mine")
    assert other_level(bare) is None  # a scene classification says it as well
    del bare["assets"]["scl"]
    if said:
        assert other_level(bare) is None
    else:
        with pytest.raises(CatalogError, match="nothing says that it is of level 2A"):
            other_level(bare)


@needs_items
def test_real_items_are_of_level_2a() -> None:
    assert [other_level(one) for one in every_item()] == [None] * len(every_item())
