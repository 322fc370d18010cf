"""The commands about a cube that is there: `history`, `rollback`, `verify`, `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from difffusr.pipeline.commands.common import (
    AsJson,
    ConfigPath,
    OfDerived,
    OfPeriod,
    Verbose,
    check_folder,
    json_place,
    load,
    run_command,
    write_file,
)
from difffusr.pipeline.commands.terminal import console, say, set_up_logging
from difffusr.pipeline.ground.errors import EXIT_FAILED

if TYPE_CHECKING:
    from difffusr.pipeline.config import RunConfig
    from difffusr.pipeline.publish import Publication
    from difffusr.pipeline.readers import BandReport, Report, SourceSeams, WorstBorder
    from difffusr.pipeline.storage import Storage

#: Columns that the history takes.
_HISTORY_WIDTH = 120

CubePath = Annotated[
    str,
    typer.Argument(
        metavar="CUBE", help="URL of a cube, or the YAML file of a run that writes one.", show_default=False
    ),
]


def history(config: ConfigPath, json_path: AsJson = None, derived: OfDerived = None, verbose: Verbose = False) -> None:
    """List all publications of a cube, the newest first."""
    settings = load(config, verbose, derived=derived)
    from difffusr.pipeline.publish import history
    from difffusr.pipeline.storage import cube_staging_of

    with json_place(json_path) as write:
        seen = history(cube_staging_of(settings))
        if seen:
            _show_history(seen)
        else:
            console.print("nothing was published yet")
        write({"publications": [record.facts() for record in seen]})


def _show_history(seen: Sequence[Publication]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

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
    # A snapshot's id must stay in one piece: a narrow terminal wraps whole lines.
    wide = Console(width=max(console.width, _HISTORY_WIDTH), soft_wrap=True, stderr=console.stderr)
    wide.print(table)


def rollback(
    config: ConfigPath,
    to: Annotated[
        int | None, typer.Option("--to", help="Number of the publication; by default the previous one.")
    ] = None,
    derived: OfDerived = None,
    verbose: Verbose = False,
) -> None:
    """Make an earlier publication visible to readers again. Writes no pixels; the next run may publish again."""
    settings = load(config, verbose, derived=derived)
    from difffusr.pipeline.publish import rollback
    from difffusr.pipeline.storage import Lease, cube_staging_of, storage_of

    staging = cube_staging_of(settings)
    lease = Lease.acquire(staging, "rollback", console.print)
    try:
        now = rollback(storage_of(settings), staging, to, lease)
    finally:
        lease.release()
    say(f"readers see publication {now.restores} again ({now.where}); `difffusr history` lists all")


def verify(
    config: ConfigPath,
    json_path: AsJson = None,
    period: OfPeriod = None,
    derived: OfDerived = None,
    verbose: Verbose = False,
) -> None:
    """Check that a cube is complete, seamless, and true to its source scenes.

    Compares every planned shard with its checksum, documents and coordinates with the cube's history, staged chips with
    themselves; `difffusr run` then writes again what is missing or damaged. By band, the seam ratio compares steps
    across chip boundaries with steps inside chips (1 is perfect), and steps across borders between dates and between
    granules with steps inside one scene; the residual is the difference between the cube, seen through the sensor, and
    the scenes. Exit code 1 when something is off. With --period, facts of other periods' scenes are not looked at.

    Warns of a 4-pixel grid, by its share of the power of fine texture, and of scenes whose bands are shifted.
    """
    settings = load(config, verbose, period, derived)
    from difffusr.pipeline.readers import verify_run

    with json_place(json_path) as write:
        with console.status("verifying …"):
            found = verify_run(settings, everything=period is None)
        write(found.to_dict())
        _show_verified(found, run_command(config, period))
    if not found.clean:
        raise typer.Exit(EXIT_FAILED)


def _show_verified(found: Report, command: str) -> None:
    _show_shards(found)
    if found.bands:
        _show_bands(found.bands)
    _show_sources(found.sources, found.worst_border)
    _show_warnings(found)
    console.print("[green]clean[/]" if found.clean else "[red]not clean[/]")
    if found.missing or found.damaged or found.incomplete or found.documents or found.chips:
        say(f"`{command}` writes again what is missing or damaged")


def report(
    cube: CubePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the page.")] = Path("report.html"),
    period: Annotated[
        list[str] | None, typer.Option(help="A period such as 2024-07; repeat for more. By default the latest.")
    ] = None,
    scenes: Annotated[
        bool, typer.Option("--scenes/--no-scenes", help="Compare with the source scenes (reads them; slower).")
    ] = True,
    verbose: Verbose = False,
) -> None:
    """Write one self-contained HTML page about a published cube.

    Shards by date and quality on a map, seams and residual by band, crops before and after, histograms, what the run
    took. Reads a bounded part of a cube of any size; the page stays small.
    """
    set_up_logging(verbose)
    check_folder(output, "--output")
    place, config = place_of_cube(cube), config_of_cube(cube)
    from difffusr.pipeline.config import staging_beside
    from difffusr.pipeline.cube import Cube
    from difffusr.pipeline.readers.report import collect_report, to_page
    from difffusr.pipeline.storage import Storage, cube_staging_of

    opened = Cube(place)
    staging = Storage(staging_beside(cube)) if config is None else cube_staging_of(config)
    with console.status("looking at the cube …"):
        page = to_page(collect_report(opened, staging, config, period or (), with_scenes=scenes)).encode()
    write_file(output, page, "--output")
    say(f"{output}  {len(page) / 1e6:.2f} MB")


def config_of_cube(name: str) -> RunConfig | None:
    """A run's configuration where a cube is named by its file."""
    from difffusr.pipeline.config import load_config

    return load_config(Path(name)) if name.endswith((".yaml", ".yml")) else None


def place_of_cube(name: str) -> Storage:
    """Where a cube is: at a URL, or where a run's configuration says.

    Raises:
        ConfigError: the configuration is not valid, or the store needs a package that is not installed.
    """
    from difffusr.pipeline.commands.extras import check_store
    from difffusr.pipeline.storage import storage_of

    config = config_of_cube(name)
    if config is None:
        return storage_at(name)
    check_store(config.store.url)
    return storage_of(config)


def storage_at(url: str) -> Storage:
    """A folder at a URL. Raises ConfigError if it needs a package that is not installed."""
    from difffusr.pipeline.commands.extras import check_store
    from difffusr.pipeline.storage import Storage

    check_store(url)
    return Storage(url)


def _show_shards(found: Report) -> None:
    from rich.table import Table

    table = Table(title="shards", title_justify="left", show_header=False)
    table.add_row("planned", f"{found.shards:,}, {found.overviews:,} of overviews", "")
    for label, names in (
        ("missing", found.missing), ("damaged", found.damaged), ("without some chips", found.incomplete),
        ("documents damaged", found.documents), ("staged chips damaged", found.chips),
    ):  # fmt: skip
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        table.add_row(label, f"{len(names):,} {shown}".rstrip(), _mark(not names))
    for flag, share in found.flags.items():
        table.add_row(flag.replace("_", " "), f"{share:.2%}", "")
    console.print(table)


def _show_bands(bands: list[BandReport]) -> None:
    from rich.table import Table

    from difffusr.pipeline.readers import GRID_LIMIT, RESIDUAL_LIMIT, SEAM_RANGE

    table = Table(title="bands", title_justify="left")
    table.add_column("band")
    table.add_column(f"seam ratio\n{SEAM_RANGE[0]}–{SEAM_RANGE[1]}", justify="right")
    table.add_column(f"residual\n≤ {RESIDUAL_LIMIT[10]} at 10 m, ≤ {RESIDUAL_LIMIT[20]} else", justify="right")
    table.add_column(f"grid\n≤ {100 * GRID_LIMIT:g} %", justify="right")
    table.add_column("")
    for band in bands:
        grid = "–" if band.gridness is None else f"{100 * band.gridness:.2f} %"
        mark = "[yellow]grid[/]" if band.ok and band.grid else _mark(band.ok)
        table.add_row(band.band, f"{band.seam_ratio:.3f} ± {band.seam_error:.3f}", f"{band.residual:.5f}", grid, mark)
    console.print(table)


def _show_sources(sources: Sequence[SourceSeams], worst: WorstBorder | None) -> None:
    from rich.table import Table

    from difffusr.pipeline.readers import SEAM_RANGE, ZONE_RANGE, shown_kinds

    shown = shown_kinds(sources)
    if not shown:
        return
    of_zones = shown[0].kind == "zones"
    title = f"zones ({ZONE_RANGE[0]} – {ZONE_RANGE[1]})" if of_zones else f"scenes (≤ {SEAM_RANGE[1]})"
    table = Table(title=f"borders between {title}", title_justify="left")
    table.add_column("band")
    for kind in shown:
        table.add_column(f"{kind.kind}, {kind.borders:,} borders", justify="right")
    table.add_column("")
    for bands in zip(*(kind.bands for kind in shown), strict=True):
        words = [f"{band.ratio:.3f} ± {band.error:.3f}" for band in bands]
        table.add_row(bands[0].band, *words, _mark(all(band.ok for band in bands)))
    console.print(table)
    if worst is not None:
        console.print(worst.words, soft_wrap=True, highlight=False, markup=False)


def _show_warnings(found: Report) -> None:
    woven = [band.band for band in found.bands if band.ok and band.grid]
    if woven:
        _warn(f"a grid of 4 pixels shows in {', '.join(woven)}, as networks leave it; the cube is not held to that yet")
    for scene in found.shifted:
        _warn(scene.words)


def _warn(words: str) -> None:
    from rich.markup import escape

    console.print(f"[yellow]warning:[/] {escape(words)}", soft_wrap=True, highlight=False)


def _mark(ok: bool) -> str:
    return "[green]ok[/]" if ok else "[red]off[/]"
