"""One chip meets each room once on its way from the plan to the published cube."""

from __future__ import annotations

from itertools import groupby

from follow_chip import follow


def test_a_chip_enters_each_room_once(tmp_path):
    rooms = [room for room, _ in groupby(file.split("/")[1] for _, file, _ in follow(tmp_path))]
    assert rooms == ["plan", "scenes", "chips", "assemble", "cube", "publish"]
