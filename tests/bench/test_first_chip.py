"""What a process of a run is, and when it was ready for work, from the titles that it has."""

from __future__ import annotations

import pytest
from first_chip import Seen, Turn, summary, table_of
from rich.console import Console


@pytest.mark.parametrize(
    ("titles", "name", "ready"),
    [
        (("python default_worker.py", "ray::IDLE", "ray::MapBatches(read_chips)"), "reader", 2.0),
        (
            (
                "python default_worker.py",
                "ray::MapWorker(MapBatches(SuperResolve)).__init__",
                "ray::MapWorker(MapBatches(SuperResolve))",
                "ray::MapWorker(MapBatches(SuperResolve)).submit",
            ),
            "actor",
            2.0,
        ),
        (("ray/core/src/ray/gcs/gcs_server --log_dir=x",), "Ray: control store", 0.0),
        (("python -u ray/_private/log_monitor.py",), "Ray: log monitor", 0.0),
        (("python -u ray/autoscaler/_private/monitor.py",), "Ray: autoscaler's monitor", 0.0),
        (("python default_worker.py", "ray::IDLE"), "worker", None),
    ],
)
def test_a_process_is_what_its_title_says_and_ready_once_it_works(titles, name, ready):
    seen = Seen("worker", 0.0)
    for second, title in enumerate(titles):
        seen.look(title, core_s=second / 10, now=float(second))
    assert (seen.name, seen.ready) == (name, ready)
    assert seen.core_s == (len(titles) - 1) / 10


def test_the_figures_are_medians_and_the_processes_those_of_the_median_turn():
    turns = [Turn(s, s / 2, 3.0, 20.0, [Seen("driver", 0.0, core_s=s)]) for s in (14.0, 12.0, 99.0)]
    found = summary(turns)
    assert (found["first_chip_s"], found["networks_s"], found["replaced_s"]) == (14.0, 7.0, 3.0)
    assert [one["core_s"] for one in found["processes"]] == [14.0]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table_of("now", found))
    assert "first chip after 14.0 s, of these 7.0 in the networks" in console.export_text()
