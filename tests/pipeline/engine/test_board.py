"""What workers are working on, and how often a chip was begun."""

from __future__ import annotations

from difffusr.pipeline.engine.board import ATTEMPTS, Board, Worker

ONE, OTHER = (Worker(name, "node", "10.0.0.1", pid) for name, pid in (("one", 1), ("other", 2)))


def test_a_worker_is_at_what_it_began_last():
    board = Board()
    board.begin(ONE, "read", ["a"])
    board.begin(ONE, "read", ["b"])
    board.begin(OTHER, "super_resolve", ["c", "d"])
    assert [(doing.worker, doing.stage, doing.chips) for doing in board.look()] == [
        (ONE, "read", ("b",)),
        (OTHER, "super_resolve", ("c", "d")),
    ]
    assert all(0 <= doing.seconds < 5 for doing in board.look())
    board.end(ONE)
    board.forget(OTHER.id)
    assert board.look() == []


def test_a_chip_that_is_begun_and_never_ended_is_counted():
    board = Board()
    assert [board.begin(ONE, "super_resolve", ["a", "b"]) for _ in range(ATTEMPTS + 1)][-1] == [ATTEMPTS + 1] * 2
    board.end(ONE, ["a"])
    # it came through before: whoever gets it again must look whether it is staged
    assert board.begin(OTHER, "super_resolve", ["a", "b"]) == [0, ATTEMPTS + 2]


def test_reading_counts_nothing():
    board = Board()
    board.begin(ONE, "read", ["a"])
    assert board.begin(ONE, "super_resolve", ["a"]) == [1]


def test_a_stop_is_heard():
    board = Board()
    assert not board.stopping()
    board.stop()
    assert board.stopping()
