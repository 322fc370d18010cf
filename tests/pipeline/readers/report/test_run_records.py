"""What runs have left is used only if it is about what readers see."""

from __future__ import annotations

from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.readers.report.run_records import is_rolled_back


def test_a_plan_that_readers_do_not_see_any_more_is_not_told_of():
    def published(number: int, period: str, restores: int | None = None) -> Publication:
        kind = "period" if restores is None else "rollback"
        return Publication(number, "", kind, period, {}, {}, 0, restores)

    first, revised, back = published(1, "Jan"), published(2, "Jan"), published(3, "Jan", restores=1)
    assert not is_rolled_back([], "Jan")
    assert not is_rolled_back([revised, first], "Jan")
    assert is_rolled_back([back, revised, first], "Jan")
    assert is_rolled_back([published(4, "Feb"), back, revised, first], "Jan")
    assert not is_rolled_back([published(5, "Jan"), published(4, "Feb"), back, revised, first], "Jan")
    assert not is_rolled_back([published(4, "Feb"), back, revised, first], "Feb")
