"""Commands that are killed at one of their requests of a store, by a real SIGKILL, and repeated: they end where an
undisturbed one does."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cube_commands import (
    COMMANDS,
    Command,
    Work,
    Workshop,
    a_month_written_again,
    a_new_month,
    back_by_one,
    back_to_the_first,
    state,
)
from drill_places import Ground
from drill_report import table, write_section
from dying import Order, Victim
from months import shown

#: By kind of store: at how many requests of each phase of each command there is a kill, and the commands.
KILLS: dict[str, tuple[int, tuple[Command, ...]]] = {
    "plain": (4, tuple(COMMANDS)),
    "Icechunk": (3, (a_new_month, a_month_written_again, back_by_one, back_to_the_first)),
    "plain on S3": (2, (a_new_month, a_month_written_again, back_by_one)),
    "Icechunk on S3": (1, (a_month_written_again, back_by_one)),
}

#: What is drilled of a command, in this order.
PHASES = ("begin", "shards", "settling", "overviews", "publish", "deletion", "rollback")


@dataclass(frozen=True)
class Killed:
    """One kill.

    Attributes:
        victim: who died, as it said itself.
        ended: how the repeated command ended: "same", or what was wrong.
    """

    store: str
    command: str
    victim: Victim
    ended: str


@dataclass
class Drill:
    """One command on one kind of store.

    Attributes:
        before: what readers see before it.
        wanted: the state after an undisturbed one.
        made: the requests of that, each with its phase.
    """

    workshop: Workshop
    ground: Ground
    command: Command
    folder: Path

    def prepare(self) -> None:
        """The undisturbed one."""
        self.name = self.ground.prepared(self.command.__name__, COMMANDS[self.command])
        self.before = shown(self.ground.at(self.name)[0])
        places, note = self.ground.copy(self.name), self._note()
        done = self.workshop.begin(Work, command=self.command, places=places, name="it", order=Order(str(note)))
        assert done.ended() == 0, done.said
        self.wanted = state(places)
        self.made: list[tuple[str, str]] = [tuple(one) for one in json.loads(note.read_text())]

    def points(self, each: int) -> Iterator[tuple[str, int]]:
        """Phases and numbers of requests in them, spread over each phase."""
        for phase, count in Counter(phase for phase, _ in self.made).items():
            if phase in PHASES:
                some = min(each * (3 if phase == "rollback" else 1), count)
                yield from ((phase, 1 + i * count // some + count // (2 * some)) for i in range(some))

    def kill(self, phase: str, at: int) -> Killed:
        """Kill it at a request, and repeat it."""
        places, note = self.ground.copy(self.name), self._note()
        of = {"command": self.command, "places": places}
        dying = self.workshop.begin(Work, **of, name="killed", order=Order(str(note), at, phase))
        code, victim = dying.ended(), Victim.noted(note)
        assert (code, dying.said) == (-signal.SIGKILL, ""), f"{phase} {at}: {code} {dying.said}"
        assert victim is not None
        assert (victim.pid, victim.phase, victim.at, victim.is_there()) == (dying.process.pid, phase, at, False)
        return Killed(self.ground.kind, self.command.__name__, victim, self._repeated(places, of))

    def _repeated(self, places: Any, of: dict[str, Any]) -> str:
        seen = shown(places[0])
        if seen not in (self.before, self.wanted[0]):
            return f"readers saw {seen}"
        again = self.workshop.begin(Work, **of, name="repeated")
        if again.ended() != 0:
            return again.said
        if state(places) != self.wanted:
            return f"another state: {places[0].url}"
        self.ground.forget(places)
        return "same"

    def _note(self) -> Path:
        return self.folder / f"note-{next(_NUMBERS)}.json"


_NUMBERS = itertools.count()


@pytest.mark.parametrize("kind", ["plain", pytest.param("Icechunk", marks=pytest.mark.slow)])
def test_a_command_that_is_killed_once_ends_as_undisturbed(kind, workshop, ground, tmp_path):
    drill = Drill(workshop, ground(kind), a_month_written_again, tmp_path)
    drill.prepare()
    killed = drill.kill("publish", 9 if kind == "plain" else 3)
    assert killed.ended == "same"
    assert killed.victim.request


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_commands_that_are_killed_at_any_request_end_as_undisturbed(workshop, ground, tmp_path, capsys):
    killed: list[Killed] = []
    for kind, (each, commands) in KILLS.items():
        here = ground(kind)
        for command in commands:
            drill = Drill(workshop, here, command, tmp_path)
            drill.prepare()
            with ThreadPoolExecutor(2) as pool:
                killed += pool.map(lambda point, drill=drill: drill.kill(*point), drill.points(each))
            with capsys.disabled():
                print(f"{kind}, {command.__name__}: {len(killed)} kills", flush=True)
    write_section("Kills by request", told(killed))
    assert len(killed) >= 100
    assert not [one for one in killed if one.ended != "same"]


def told(killed: list[Killed]) -> str:
    """The section of the report."""
    kinds = [kind for kind in KILLS if any(one.store == kind for one in killed)]
    cells = Counter((one.victim.phase, one.store) for one in killed)
    rows = [
        (phase, *(cells[phase, kind] for kind in kinds), sum(cells[phase, kind] for kind in kinds))
        for phase in PHASES
        if any(cells[phase, kind] for kind in kinds)
    ]
    rows.append(("all", *(sum(cells[phase, kind] for phase in PHASES) for kind in kinds), len(killed)))
    wrong = [one for one in killed if one.ended != "same"]
    lines = [
        f"{len(killed)} processes that ended themselves by SIGKILL at a request of the storage layer; each command was",
        f"then repeated. Ended with the same: {len(killed) - len(wrong)}. No chance in it: no seed.",
        "",
        table(("killed in", *kinds, "all"), rows),
        *(f"\n- NOT THE SAME: {one.store}, {one.command}, {one.victim}: {one.ended}" for one in wrong),
    ]
    return "\n".join(lines)
