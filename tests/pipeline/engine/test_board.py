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


def test_what_lies_behind_on_a_device_is_worked_on_once_what_is_before_it_has_ended():
    board = Board()
    board.begin(ONE, "super_resolve", ["a"])
    assert board.begin_behind(ONE, ["b", "c"]) == [1, 1]
    assert [doing.chips for doing in board.look()] == [("a",)]
    board.end(ONE, ["a"])
    assert [doing.chips for doing in board.look()] == [("b", "c")]
    board.end(ONE, ["b", "c"])
    assert board.look() == []
    assert board.begin(OTHER, "super_resolve", ["a", "b"]) == [0, 0]


def test_what_is_begun_behind_what_has_ended_meanwhile_is_worked_on():
    board = Board()
    assert board.begin_behind(ONE, ["a"]) == [1]
    assert [doing.chips for doing in board.look()] == [("a",)]


def test_a_chip_that_was_begun_before_lies_behind_no_other_and_is_not_counted():
    board = Board()
    board.begin(OTHER, "super_resolve", ["b"])
    board.begin(ONE, "super_resolve", ["a"])
    assert board.begin_behind(ONE, ["b", "c"]) is None
    board.end(ONE, ["a"])
    assert board.begin(ONE, "super_resolve", ["b", "c"]) == [2, 1]


def test_nothing_lies_behind_a_worker_that_is_gone():
    board = Board()
    board.begin(ONE, "super_resolve", ["a"])
    board.begin_behind(ONE, ["b"])
    board.forget(ONE.id)
    board.begin(ONE, "read", ["c"])
    board.end(ONE)
    assert board.look() == []
