"""What workers are working on, and how often a chip was begun."""

from __future__ import annotations

from difffusr.pipeline.engine.board import ATTEMPTS, MOST_GIVEN_BACK, Board, Worker

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


def test_what_a_preempted_actor_was_at_does_not_count_against_its_chips():
    board = Board()
    for _ in range(ATTEMPTS + 3):
        assert board.begin(ONE, "super_resolve", ["a"]) == [1]
        assert board.begin_behind(ONE, ["b"]) == [1]
        board.preempt(ONE, "actor", "aws: terminate", 100.0)
        board.forget(ONE.id)
    assert {(one.source, one.chips, one.given_back) for one in board.preempted()} == {("aws: terminate", 2, None)}


def test_a_chip_that_is_given_back_again_and_again_counts_after_all():
    board = Board()
    attempts = []
    for _ in range(MOST_GIVEN_BACK + ATTEMPTS + 1):
        attempts += board.begin(ONE, "super_resolve", ["a"])
        board.preempt(ONE, "actor", "SIGTERM", 30.0)
        board.forget(ONE.id)
    assert attempts == [1] * (MOST_GIVEN_BACK + 1) + list(range(2, ATTEMPTS + 2))


def test_what_a_preempted_actor_ends_in_time_has_come_through():
    board = Board()
    board.begin(ONE, "super_resolve", ["a", "b"])
    board.preempt(ONE, "actor", "file", 10.0)
    board.end(ONE, ["a", "b"])
    board.leave(ONE, "file")
    assert [one.given_back for one in board.preempted(1)] == [0]
    assert board.begin(OTHER, "super_resolve", ["a", "b"]) == [0, 0]


def test_what_it_does_not_end_in_time_is_given_back():
    board = Board()
    board.begin(ONE, "super_resolve", ["a", "b"])
    board.begin_behind(ONE, ["c"])
    board.preempt(ONE, "actor", "file", 1.0)
    board.end(ONE, ["a", "b"])
    board.leave(ONE, "file")
    assert [one.given_back for one in board.preempted()] == [None, 1]
    assert board.look() == []
    assert board.begin(OTHER, "super_resolve", ["c"]) == [1]


def test_an_actor_that_begins_anew_hears_once_that_it_was_preempted():
    board = Board()
    board.preempt(ONE, "actor", "file", 1.0)
    assert [board.was_preempted(actor) for actor in ("another", "actor", "actor")] == [False, True, False]


def test_workers_hear_when_their_node_goes_and_when_it_stays_after_all():
    board = Board("home")
    assert board.asked("node") == (False, None)
    board.drain({"node": 1e9})
    assert (board.asked("node"), board.asked("other")) == ((False, 1e9), (False, None))
    board.drain({})
    board.stop()
    assert board.asked("node") == (True, None)
    assert board.home() == "home"
