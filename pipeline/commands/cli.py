"""Commands: thin. Each loads the configuration, calls one function, and shows what came of it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from difffusr.pipeline.commands import plan as plan_commands
from difffusr.pipeline.commands.cube import (
    show_export,
    show_history,
    show_map,
    show_records,
    show_report,
    show_rollback,
)
from difffusr.pipeline.commands.evaluate import evaluate
from difffusr.pipeline.commands.run import result_table, show_result, show_status, show_stopped
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import EXIT_FAILED, DifffusrError, StoreError
from difffusr.pipeline.readers.verdicts import RESIDUAL_LIMIT, SEAM_RANGE
from difffusr.pipeline.readers.verify import Report, verify_run
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.run.stop import Stopped
from difffusr.pipeline.storage.places import cube_staging_of, storage_of
from difffusr.pipeline.watch.log import json_lines, secret_values

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import Training


app = typer.Typer(
    name="difffusr",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Super-resolves Sentinel-2 Level-2A to 2.5 m in all 12 bands and assembles seamless Zarr cubes.\n\n"
        "A run is described by one YAML file. The usual way: [bold]plan[/] it and look at what it will do, "
        "[bold]run[/] it (again after any interruption: what is done is not done twice), watch it with "
        "[bold]status[/], and [bold]verify[/] the cube. [bold]train[/] makes weights, "
        "[bold]evaluate[/] judges them.\n\n"
        "Exit codes: 0 done · 1 failed, or verify found something off · 2 wrong usage or configuration · 3 finished, "
        "but chips failed (they are listed, and tried again by the next run)."
    ),
)


console = Console()


errors = Console(stderr=True)


ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="YAML file that describes the run.", show_default=False)
]


OfPeriod = Annotated[
    str | None,
    typer.Option(
        "--period",
        metavar="PERIOD",
        help="Another period than the file's: 2024-07, 2024, 2024-07-05_2024-08-04 or last-month.",
        show_default=False,
    ),
]


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also say what is merely informative.")]


@app.command()
def plan(
    config: ConfigPath,
    estimate: plan_commands.Estimating = False,
    actors: plan_commands.Actors = None,
    gpus: plan_commands.Gpus = None,
    cpus: plan_commands.Cpus = None,
    diff: plan_commands.Diff = False,
    map_path: plan_commands.MapPath = None,
    json_path: plan_commands.JsonPath = None,
    period: OfPeriod = None,
    verbose: Verbose = False,
) -> None:
    """Show what a run would do, and write the plan as GeoParquet below the staging folder.

    Nothing is computed. Open plan/chips.parquet in QGIS or geopandas to see where.
    """
    settings = _load(config, verbose, period)
    plan_commands.show_plan(
        settings,
        with_estimate=estimate,
        cluster=plan_commands.chosen_cluster(settings, actors, gpus, cpus) if estimate else None,
        with_diff=diff,
        map_path=map_path,
        json_path=json_path,
    )


@app.command()
def calibrate(
    config: ConfigPath,
    output: plan_commands.Output = Path("calibration.json"),
    batches: plan_commands.Batches = None,
    verbose: Verbose = False,
) -> None:
    """Measure this machine: seconds a chip, bytes read and written, with the run's own models, source and store.

    The file that comes of it is what [bold]plan --estimate[/] and a budget reckon with.
    """
    settings = _load(config, verbose)
    plan_commands.show_calibration(settings, output, plan_commands.batches_of(batches))


@app.command()
def run(
    config: ConfigPath,
    json_log: Annotated[
        Path | None, typer.Option("--json-log", help="Also log to this file, one JSON object a line.")
    ] = None,
    period: OfPeriod = None,
    verbose: Verbose = False,
) -> None:
    """Run a configuration from catalogue to published cube.

    An interrupted run continues where it was: start it again. Asked to stop (SIGTERM, Ctrl-C), it finishes what is in
    flight. Readers see the new cube only once it is complete.
    """
    settings = _load(config, verbose, period)
    if json_log is not None:
        lines = json_lines(json_log, f"{settings.name}, {settings.period.label}")
        lines.hide(secret_values(settings.store.storage_options))
        logging.getLogger("difffusr").addHandler(lines)
    again = _run_command(config, period)
    try:
        with _RichProgress() as progress:
            result = execute(settings, progress)
    except Stopped:
        show_stopped(again)
        raise typer.Exit from None
    show_result(settings, result, again)
    raise typer.Exit(result.exit_code)


@app.command()
def status(config: ConfigPath, period: OfPeriod = None, verbose: Verbose = False) -> None:
    """Show how far a run is, from its staging folder alone: from any machine that can read the store."""
    show_status(_load(config, verbose, period), _run_command(config, period))


@app.command()
def history(config: ConfigPath, verbose: Verbose = False) -> None:
    """List what readers of a cube have seen: every publication, the newest first."""
    show_history(cube_staging_of(_load(config, verbose)))


@app.command()
def rollback(
    config: ConfigPath,
    to: Annotated[int | None, typer.Option("--to", help="Number of a publication; else the one before.")] = None,
    verbose: Verbose = False,
) -> None:
    """Let readers see an earlier publication again. No pixel is written; the next run may publish anew."""
    settings = _load(config, verbose)
    show_rollback(storage_of(settings), cube_staging_of(settings), to)


@app.command()
def verify(
    config: ConfigPath,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures as JSON to this file.")
    ] = None,
    period: OfPeriod = None,
    verbose: Verbose = False,
) -> None:
    """Check that a cube is whole, seamless, and true to its source scenes.

    Every planned shard is compared with its checksum. By band, the seam ratio says how steps across chip boundaries
    compare with steps inside chips (1 is perfect), the residual how far the cube, seen through the sensor, is from the
    scenes. Exit code 1 when something is off.
    """
    settings = _load(config, verbose, period)
    if json_path is not None and not json_path.parent.is_dir():
        raise StoreError(f"{json_path}: cannot be written (no such folder); choose another --json")
    with console.status("verifying …"):
        report = verify_run(settings)
    if json_path is not None:
        try:
            json_path.write_text(json.dumps(report.to_dict(), indent=1))
        except OSError as error:
            raise StoreError(
                f"{json_path}: cannot be written ({error.strerror or error}); choose another --json"
            ) from None
    _show_report(report)
    if not report.clean:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def export(
    cube: Annotated[
        str,
        typer.Argument(
            metavar="CUBE", help="URL of a cube, or the YAML file of a run that writes one.", show_default=False
        ),
    ],
    cog: Annotated[
        str, typer.Option("--cog", metavar="FOLDER", help="Folder or URL for the files.", show_default=False)
    ],
    area: Annotated[
        str | None, typer.Option(metavar="FILE", help="Polygons (GeoJSON, GeoPackage, …); else the whole cube.")
    ] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="A box in degrees instead of --area.")] = None,
    period: Annotated[
        list[str] | None, typer.Option(help="A period such as 2024-07; again for more. All of them by default.")
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option(help="A variable; again for more. By default reflectance and quality.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    scratch: Annotated[Path | None, typer.Option(help="A folder with room for a draft of the largest file.")] = None,
    verbose: Verbose = False,
) -> None:
    """Write Cloud Optimized GeoTIFFs of an area, one for each zone, period and variable.

    Each shows the area's bounding box in its zone, with band names, wavelengths, scale and overviews.
    """
    _set_up_logging(verbose)
    show_export(
        cube,
        cog,
        area=area,
        box_degrees=bbox,
        periods=period or (),
        variables=variable or (),
        overwrite=overwrite,
        scratch=scratch,
    )


@app.command()
def stac(
    cube: Annotated[
        str,
        typer.Argument(
            metavar="CUBE", help="URL of a cube, or the YAML file of a run that writes one.", show_default=False
        ),
    ],
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder or URL for the documents.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--id", help="The collection's id; else the last part of the cube's URL.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Describe a published cube as STAC: a collection, an item for each zone and period, and a stac-geoparquet.

    Run it again after each publication: documents are replaced.
    """
    _set_up_logging(verbose)
    show_records(cube, folder, name)


@app.command()
def report(
    cube: Annotated[
        str,
        typer.Argument(
            metavar="CUBE", help="URL of a cube, or the YAML file of a run that writes one.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    period: Annotated[
        list[str] | None, typer.Option(help="A period such as 2024-07; again for more. The latest by default.")
    ] = None,
    scenes: Annotated[
        bool, typer.Option("--scenes/--no-scenes", help="Compare with the source scenes, which takes reading them.")
    ] = True,
    verbose: Verbose = False,
) -> None:
    """Write one self-contained HTML page about a published cube.

    Shards by date and quality on a map, seams and residual by band, crops before and after, histograms, what the run
    took. However large the cube, only a bounded part of it is read, and the page stays small.
    """
    _set_up_logging(verbose)
    show_report(cube, output, periods=period or (), with_scenes=scenes)


@app.command()
def view(
    cube: Annotated[
        str,
        typer.Argument(
            metavar="CUBE", help="URL of a cube, or the YAML file of a run that writes one.", show_default=False
        ),
    ],
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes any that is free.", min=0, max=65535)] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Anybody who reaches another than this one can see the cube.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    maplibre: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Folder or tarball of the npm package maplibre-gl, where npm is out of reach."
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Look at a published cube on a map in the browser. Needs [bold]pip install 'difffusr\\[view]'[/].

    2.5 m beside 10 m, band combinations, indices, periods, quality, and the spectrum of any pixel. MapLibre GL JS is
    fetched once from the npm registry; the page itself loads nothing from elsewhere.
    """
    _set_up_logging(verbose)
    show_map(cube, host=host, port=port, browser=not no_browser, maplibre=maplibre)


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the world, the cube and the pictures.")
    ] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of the generated world.", min=0)] = 7,
    verbose: Verbose = False,
) -> None:
    """Generate a small world, run the whole job on it, and compare the result with the world's truth.

    Two overlapping tiles, two dates, one cloud; fields, roads, buildings, water. Takes some minutes on two cores.
    """
    from difffusr.pipeline.commands.demo import run_demo

    _set_up_logging(verbose)
    with _RichProgress() as progress:
        outcome = run_demo(folder, seed, progress)
    console.print(result_table(outcome.config, outcome.result))
    table = Table(title="against the truth at 2.5 m", title_justify="left")
    for heading in ("", "PSNR RGB dB ↑", "PSNR 12 bands dB ↑", "SAM ° ↓", "ERGAS ↓"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, scores in outcome.scores.items():
        table.add_row(name, f"{scores.psnr_rgb:.2f}", f"{scores.psnr:.2f}", f"{scores.sam:.2f}", f"{scores.ergas:.2f}")
    console.print(table)
    console.print(f"picture: {outcome.picture}", soft_wrap=True, highlight=False, markup=False)
    console.print(
        f'cube:    xarray.open_zarr("{outcome.config.store.url}", group="{outcome.group}")',
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    raise typer.Exit(outcome.result.exit_code)


train_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Train the networks on your own imagery, as a YAML file describes it (pipeline/examples/train-*.yaml).\n\n"
        "An interrupted training goes on where it was: start it again. Needs [bold]pip install 'difffusr\\[train]'[/]."
    ),
)


app.add_typer(train_app, name="train")


app.add_typer(evaluate, name="evaluate")


DataFolder = Annotated[
    Path | None, typer.Option("--data", help="The folder that relative data paths mean; replaces root.")
]


OutFolder = Annotated[Path | None, typer.Option("--out", help="The folder of the training; replaces out.")]


Steps = Annotated[int | None, typer.Option("--steps", help="Steps in all; replaces steps.", min=1)]


@train_app.command("sr")
def train_sr(
    config: ConfigPath,
    data: DataFolder = None,
    out: OutFolder = None,
    steps: Steps = None,
    verbose: Verbose = False,
) -> None:
    """Train the super-resolution of red, green and blue (stage 1) on imagery finer than Sentinel-2."""
    from difffusr.pipeline.weights.training.settings import SuperResolutionSettings, load_settings

    _set_up_logging(verbose)
    _train(load_settings(SuperResolutionSettings, config, _given(root=data, out=out, steps=steps)), config)


@train_app.command("fusion")
def train_fusion(
    config: ConfigPath,
    data: DataFolder = None,
    out: OutFolder = None,
    steps: Steps = None,
    verbose: Verbose = False,
) -> None:
    """Train the fusion of all 12 bands on Sentinel-2 itself, seen from farther away."""
    from difffusr.pipeline.weights.training.settings import FusionSettings, load_settings

    _set_up_logging(verbose)
    _train(load_settings(FusionSettings, config, _given(root=data, out=out, steps=steps)), config)


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _train(settings: Training, config: Path) -> None:
    from difffusr.pipeline.weights.training.launch import run_training

    with _TrainingProgress() as progress:
        ended = run_training(settings, progress)
    if ended.weights is None:
        errors.print(f"stopped at step {ended.step}; run the same command to continue", highlight=False)
        raise typer.Exit(130)
    where = f"curves: {ended.out}/losses.png · samples: {ended.out}/samples · tensorboard --logdir {ended.out}"
    console.print(
        f"{ended.step:,} steps · weights: {ended.weights} · {where}", soft_wrap=True, highlight=False, markup=False
    )


def main() -> None:
    """The `difffusr` command: one clear line and the right exit code for whatever the user can mend."""
    try:
        app()
    except DifffusrError as error:
        errors.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted; start the same command again to continue", soft_wrap=True, highlight=False)
        sys.exit(130)


def _load(path: Path, verbose: bool, period: str | None = None) -> RunConfig:
    _set_up_logging(verbose)
    return load_config(path, {} if period is None else {"period": period})


def _run_command(config: Path, period: str | None) -> str:
    """What is to be typed to begin or continue a run."""
    return f"difffusr run {config}" + (f" --period {period}" if period else "")


class _Lines(logging.Handler):
    """Log records as one line each on standard error, however narrow the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        level = record.levelname.lower()
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        errors.print(f"[{style}]{level}:[/] {_escape(record.getMessage())}", soft_wrap=True, highlight=False)


def _set_up_logging(verbose: bool) -> None:
    logger = logging.getLogger("difffusr")
    logger.handlers = [_Lines()]
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


def _escape(text: str) -> str:
    return escape(text)


class _RichProgress:
    """`run.Progress` as bars."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> _RichProgress:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """See `run.Progress`."""
        self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done)

    def advance(self, stage: str) -> None:
        """See `run.Progress`."""
        self._bars.advance(self._tasks[stage])  # type: ignore[arg-type]


class _TrainingProgress:
    """`training.launch.Watcher` as a bar with the losses beside it."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting …", total=None)

    def __enter__(self) -> _TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def at(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """See `training.launch.Watcher`."""
        shown = [f"{name} {value:.3f}" for name, value in losses.items() if name not in ("norm", "rate", "seconds")]
        said = " · ".join(shown if console.width >= 120 else shown[:1]) or "starting …"
        self._bar.update(self._task, completed=step, total=steps, description=said)


def _show_report(report: Report) -> None:
    def mark(ok: bool) -> str:
        return "[green]ok[/]" if ok else "[red]off[/]"

    whole = Table(title="shards", title_justify="left", show_header=False)
    whole.add_row("planned", f"{report.shards:,}, {report.overviews:,} of overviews", "")
    for label, names in (
        ("never written", report.missing), ("damaged", report.damaged), ("without some chips", report.incomplete),
    ):  # fmt: skip
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        whole.add_row(label, f"{len(names):,} {shown}".rstrip(), mark(not names))
    for flag, share in report.flags.items():
        whole.add_row(flag.replace("_", " "), f"{share:.2%}", "")
    console.print(whole)
    if report.bands:
        bands = Table(title="bands", title_justify="left")
        bands.add_column("band")
        bands.add_column(f"seam ratio ({SEAM_RANGE[0]}–{SEAM_RANGE[1]})", justify="right")
        bands.add_column(f"residual (≤ {RESIDUAL_LIMIT[10]} at 10 m, ≤ {RESIDUAL_LIMIT[20]} else)", justify="right")
        bands.add_column("")
        for band in report.bands:
            bands.add_row(
                band.band, f"{band.seam_ratio:.3f} ± {band.seam_error:.3f}", f"{band.residual:.5f}", mark(band.ok)
            )
        console.print(bands)
    console.print("[green]clean[/]" if report.clean else "[red]not clean[/]")
