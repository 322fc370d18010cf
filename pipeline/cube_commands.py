"""What `history` and `rollback` say."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.lease import Lease
from pipeline.publishing import history, rollback
from pipeline.storage import Storage

console = Console()

#: Columns that the history takes.
_WIDTH = 120


def show_history(staging: Storage) -> None:
    """Every publication of a cube, the newest first.

    Args:
        staging: the cube's staging folder.

    Raises:
        StoreError: the history cannot be read.
    """
    seen = history(staging)
    if not seen:
        console.print("nothing was published yet")
        return
    title = "publications, the newest first; readers see ●"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "no.", "when (UTC)", "what", "period", "shards"):
        table.add_column(heading, justify="right" if heading in ("no.", "shards") else "left", no_wrap=True)
    table.add_column("where", no_wrap=True)
    for record in seen:
        what = {"period": "new period", "revision": "revision"}.get(record.kind, f"rollback to {record.restores}")
        where = "deleted" if record.gone else record.where
        when = record.when[:16].replace("T", " ")
        mark, written = "[green]●[/]" if record.current else "", f"{record.shards_written:,}"
        table.add_row(mark, str(record.number), when, what, record.period, written, where)
    # Nobody can read a snapshot's id in pieces: a narrow terminal wraps the lines as they are.
    Console(width=max(console.width, _WIDTH), soft_wrap=True).print(table)


def show_rollback(storage: Storage, staging: Storage, to: int | None) -> None:
    """Go back, and say to what.

    Raises:
        DifffusrError: there is nothing to go back to, or a run is at work.
    """
    lease = Lease.acquire(staging, "rollback", console.print)
    try:
        now = rollback(storage, staging, to)
    finally:
        lease.release()
    console.print(
        f"readers see publication {now.restores} again ({now.where}); `difffusr history` tells the rest",
        soft_wrap=True,
        markup=False,
    )
