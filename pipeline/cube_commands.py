"""What `history` and `rollback` say."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipeline.lease import Lease
from pipeline.publishing import history, rollback
from pipeline.storage import Storage

console = Console()


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
    table = Table(title="publications, the newest first", title_justify="left")
    for heading in ("", "number", "when (UTC)", "what", "period", "shards written", "where"):
        table.add_column(heading, justify="right" if heading in ("number", "shards written") else "left")
    for record in seen:
        what = {"period": "new period", "revision": "revision"}.get(record.kind, f"rollback to {record.restores}")
        where = "deleted" if record.gone else record.where
        mark = "[green]●[/] readers see" if record.current else ""
        written = f"{record.shards_written:,}"
        table.add_row(mark, str(record.number), record.when[:19], what, record.period, written, where)
    console.print(table)


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
        f"readers see publication {now.restores} again ({now.where}); `difffusr history` tells the rest", soft_wrap=True
    )
