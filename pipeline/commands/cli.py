"""The command line: puts the commands together, and turns every error that a user can mend into one clear line.

Commands import what they need when they are called, so that `--help`, a typo or `status` wait for none of it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from difffusr.pipeline.commands import beginning, continent, cube, demo, exporting, plan, reading, run, view
from difffusr.pipeline.commands.evaluate import evaluate_app
from difffusr.pipeline.commands.terminal import errors
from difffusr.pipeline.commands.train import train_app
from difffusr.pipeline.ground.errors import DifffusrError, StoreError

app = typer.Typer(
    name="difffusr",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help=(
        "Super-resolves Sentinel-2 Level-2A to 2.5 m in all 12 bands and assembles seamless Zarr cubes.\n\n"
        "One YAML file describes a run. The usual way: [bold]init[/] writes it, [bold]plan[/] it and check what it "
        "will do, [bold]run[/] it "
        "(again after any interruption: it continues), watch it with [bold]status[/], and [bold]verify[/] the cube. "
        "[bold]train[/] makes weights, [bold]evaluate[/] measures them.\n\n"
        "Exit codes: 0 done · 1 failed, or verify found something off · 2 wrong usage or configuration · 3 finished, "
        "but chips failed (they are listed, and the next run tries them again)."
    ),
)

for command in (
    beginning.init,
    plan.plan,
    plan.calibrate,
    run.run,
    run.status,
    continent.continent,
    cube.history,
    cube.rollback,
    cube.verify,
    reading.sample,
    reading.mosaic,
    exporting.export,
    exporting.stac,
    cube.report,
    view.view,
    demo.demo,
    beginning.schema,
):
    app.command()(command)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"difffusr {version('difffusr')}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del version  # its callback has printed it


def main() -> None:
    """The `difffusr` command: one clear line and the right exit code for every error that a user can mend."""
    sigterm = _Sigterm()
    try:
        with sigterm.heard():
            app()
    except DifffusrError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        from difffusr.pipeline.commands.extras import missing_extra

        missing = missing_extra(error, next((word for word in sys.argv[1:] if not word.startswith("-")), "difffusr"))
        if missing is None:
            raise
        _fail(missing)
    except OSError as error:
        if "--install-completion" not in sys.argv[1:]:
            raise
        where = f"{error.filename}: completion cannot be installed ({error.strerror})"
        _fail(StoreError(f"{where}; put what --show-completion prints where your shell reads it"))
    except KeyboardInterrupt:
        what, code = ("asked to stop", _TERMINATED) if sigterm.came else ("interrupted", _INTERRUPTED)
        errors.print(f"{what}; start the same command again to continue", soft_wrap=True, highlight=False)
        sys.exit(code)


#: Exit codes of a command that Ctrl-C or SIGTERM has ended, as shells have them.
_INTERRUPTED, _TERMINATED = 130, 143

#: Seconds after SIGTERM until a command is ended whatever it waits for: an answer of a catalogue, say. Training writes
#: a checkpoint before.
_PATIENCE_S = 8.0


class _Sigterm:
    """Meanwhile SIGTERM ends a command as Ctrl-C does, and for sure. A run hears it itself.

    Attributes:
        came: whether it came.
    """

    def __init__(self) -> None:
        self.came = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Raises KeyboardInterrupt where SIGTERM came, or Ctrl-C."""
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, self._hear) if is_main else None
        try:
            yield
        except SystemExit as end:
            self.came = self.came or end.code == signal.SIGTERM  # Ray's own answer while it starts
            if end.code in (signal.SIGTERM, _INTERRUPTED):  # Typer's
                raise KeyboardInterrupt from None
            raise
        finally:
            if is_main:
                signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if not self.came and sys.argv[1:2] != ["train"]:
            impatient = threading.Timer(_PATIENCE_S, os._exit, (_TERMINATED,))
            impatient.daemon = True
            impatient.start()
        self.came = True
        raise KeyboardInterrupt


def _fail(error: DifffusrError) -> NoReturn:
    errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
    sys.exit(error.exit_code)
