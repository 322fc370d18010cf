"""The commands `difffusr init` and `difffusr schema`: a first configuration, and what editors check it by."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from difffusr.pipeline.commands.common import check_folder, write_file
from difffusr.pipeline.commands.terminal import errors, say, set_up_logging
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import is_url

#: A section of a configuration, or several.
Sections = dict[str, Any]


def schema(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Write it there instead of printing it.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON schema of the configuration, for editors and for checks without this package.

    Draft 2020-12. It refuses what `plan` and `run` refuse, but for what takes two values to be compared, or a look at
    other files. Editors with a YAML language server find it by the first line of the examples and of what `init`
    writes.
    """
    from difffusr.pipeline.config import schema_text

    if file is None:
        typer.echo(schema_text(), nl=False)
        return
    check_folder(file, "FILE")
    write_file(file, schema_text(), "FILE")


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The YAML file to write.")] = Path("run.yaml"),
    bbox: Annotated[
        str | None,
        typer.Option(metavar="W,S,E,N", help="Area: a box in degrees, such as 6.0,49.5,6.2,49.7.", show_default=False),
    ] = None,
    tiles: Annotated[
        str | None, typer.Option(metavar="TILES", help="Area: MGRS tiles, such as 48QUE,48QVE.", show_default=False)
    ] = None,
    polygons: Annotated[
        Path | None,
        typer.Option(
            "--area", metavar="FILE", help="Area: a file with polygons, GeoJSON or any vector file.", show_default=False
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="The layer of --area, where several have polygons.")
    ] = None,
    country: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of --area only what some attribute names so, such as LUX or Luxembourg.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="Of --area only what matches this (OGR SQL).", show_default=False),
    ] = None,
    period: Annotated[
        str | None,
        typer.Option(metavar="PERIOD", help="2024-07, 2024, 2024-07-05_2024-08-04 or last-month.", show_default=False),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="earth-search, planetary-computer or cdse; or the URL of a STAC API, or the path or URL of a "
            "catalog.json or of a file of items.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the cube will be: a path, or a URL such as s3://bucket/cube.zarr."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="PRESET", help="The networks: small or published.", show_default="small")
    ] = None,
    stage1: Annotated[
        str | None, typer.Option(metavar="FILE", help="Super-resolution weights, for published.", show_default=False)
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(metavar="FILE", help="Fusion weights, for published.", show_default=False)
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Ray cluster (auto: the one that this machine belongs to) instead of this machine.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The run's name, by default the file's.", show_default=False)
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Ask nothing: what is not given has its default; only the area has none."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
) -> None:
    """Write the configuration of a run: asks what is not given, or takes the options alone.

    The file is commented; `difffusr plan` takes it as it stands. Paths of the options are relative to this folder, in
    the file to the file's. Beside it goes difffusr.schema.json, by which editors know the keys.
    """
    set_up_logging(False)
    if not overwrite and file.exists():
        raise ConfigError(f"{file}: is there already; give another FILE, or --overwrite to replace it")
    check_folder(file, "FILE")
    asks = _Asks(file, ask=not yes and sys.stdin.isatty(), defaults=yes)
    sections: Sections = {} if name is None else asks.checked("--name", lambda: {"name": name})
    sections |= asks.area(bbox, tiles, polygons, layer, country, where)
    sections |= asks.period(period)
    sections |= asks.source(source)
    sections |= asks.store(store)
    sections |= asks.model(preset, stage1, fusion)
    sections |= asks.compute(cluster)
    asks.complete()
    _write(file, sections)


def _write(file: Path, sections: Sections) -> None:
    from difffusr.pipeline.commands.extras import check_store
    from difffusr.pipeline.config import SCHEMA_FILE, configured, drafted, is_schema, schema_text

    config = configured(sections | {"name": sections.get("name", "run")})
    write_file(file, drafted(sections, _shell_word(file)), "FILE")
    beside = file.parent / SCHEMA_FILE
    if not beside.exists() or is_schema(beside.read_text(encoding="utf-8", errors="replace")):
        write_file(beside, schema_text(), "FILE")
    else:
        errors.print(f"note: {beside} is another file and stays; editors will not know the keys", highlight=False)
    say(f"{file} is written; what it will do: difffusr plan {_shell_word(file)}")
    try:
        check_store(config.store.url)
    except ConfigError as error:
        errors.print(f"note: {error}", soft_wrap=True, highlight=False, markup=False)


def _shell_word(file: Path) -> str:
    import shlex

    return shlex.quote(str(file))


@dataclass
class _Asks:
    """Takes each answer from its option, from whoever sits at the terminal, or from its default.

    Attributes:
        file: that is written: paths become relative to its folder.
        ask: there is a terminal, and it is wanted.
        defaults: what is not given has its default.
    """

    file: Path
    ask: bool
    defaults: bool

    def __post_init__(self) -> None:
        self._missing: list[str] = []

    def complete(self) -> None:
        """Raise ConfigError if something is missing, in one line."""
        if self._missing:
            without = "" if self.defaults else "no terminal to ask at: "
            rest = "" if self.defaults else "; --yes takes the defaults for all but the area"
            raise ConfigError(f"init: {without}missing {', '.join(self._missing)}{rest}")

    def checked(self, option: str, given: Callable[[], Sections]) -> Sections:
        """Sections that are valid. Raises ConfigError that begins with the option."""
        from difffusr.pipeline.config import configured

        try:
            found = given()
            configured({**_VALID, **found})
        except ConfigError as error:
            raise ConfigError(f"{option}: {str(error).removeprefix('options: ')}" if option else str(error)) from None
        return found

    def _answer(
        self, option: str, given: str | None, question: str, default: str | None, meant: Callable[[str], Sections]
    ) -> Sections:
        """The sections that an answer means; at the terminal it is asked for until it means something."""
        if given is not None:
            return self.checked(option, partial(meant, given))
        if not self.ask:
            if default is None or not (self.defaults or option in _OPTIONAL):
                self._missing.append(_MISSING.get(option, option))
                return {}
            return self.checked(option, partial(meant, default))
        while True:
            try:
                answer = typer.prompt(question, default=default, err=True).strip()
            except typer.Abort:  # Ctrl-C, Ctrl-D
                raise KeyboardInterrupt from None
            try:
                return self.checked("", partial(meant, answer))
            except ConfigError as error:
                text = str(error).removeprefix("options: ")
                errors.print(f"  {text}", soft_wrap=True, highlight=False, markup=False)

    def area(
        self,
        bbox: str | None,
        tiles: str | None,
        polygons: Path | None,
        layer: str | None,
        country: str | None,
        where: str | None,
    ) -> Sections:
        """Where."""
        given = {"--bbox": bbox, "--tiles": tiles, "--area": None if polygons is None else str(polygons)}
        options = [option for option, value in given.items() if value is not None]
        if len(options) > 1:
            raise ConfigError(f"{' and '.join(options)}: give one of them")
        if country is not None and where is not None:
            raise ConfigError("--country and --where: give one of them")
        for option, value in (("--layer", layer), ("--country", country), ("--where", where)):
            if value is not None and options and options != ["--area"]:
                raise ConfigError(f"{option}: only valid with --area")
        choice = {key: value for key, value in (("layer", layer), ("where", where)) if value is not None}
        if not options:
            question = "area: west,south,east,north, MGRS tiles, or a file with polygons"
            found = self._answer("--bbox", None, question, None, lambda text: self._meant_area(text, choice, country))
            named = found.get("area", {}).get("file")
            if named is None or country is not None or where is not None:
                return found
            return self._answer(
                "--country", None, "which country, as the file names it (all: everything in it)", "all",
                lambda text: found if text == "all" else self._polygons(named, choice, text, written=True),
            )  # fmt: skip
        (option,) = options
        kinds = {"--bbox": _box, "--tiles": _tiles, "--area": lambda text: self._polygons(text, choice, country)}
        return self._answer(option, given[option], "", None, kinds[option])

    def _meant_area(self, text: str, choice: Sections, country: str | None) -> Sections:
        parts = re.split(r"[,\s]+", text.strip("[] "))
        if all(re.fullmatch(r"[+-]?\d*\.?\d+", part) for part in parts):
            return _box(text)
        if all(re.fullmatch(r"[Tt]?\d{1,2}[A-Za-z]{3}", part) for part in parts):
            return _tiles(text)
        return self._polygons(text, choice, country)

    def _polygons(self, text: str, choice: Sections, country: str | None, *, written: bool = False) -> Sections:
        """A file with polygons.

        Args:
            written: the path is as the file will say it.
        """
        path = Path(self.file.parent, text) if written else Path(text).expanduser()
        if not path.exists():
            raise ConfigError(f"found '{text}', expected a file with polygons: there is no such file")
        from difffusr.pipeline.config import AreaSection
        from difffusr.pipeline.geo import condition_for, geometry_of

        file = str(path.resolve())
        if path.suffix.lower() in (".geojson", ".json") and not choice and country is None:
            geometry_of(AreaSection(geojson=file))
            return {"area": {"geojson": self._place(str(path))}}
        if country is not None:
            choice = {**choice, "where": condition_for(AreaSection(file=file, **choice), country)}
        geometry_of(AreaSection(file=file, **choice))
        return {"area": {"file": self._place(str(path)), **choice}}

    def period(self, given: str | None) -> Sections:
        """When."""
        question = "period: a month such as 2024-07, a year, first_last day, or last-month"
        return self._answer("--period", given, question, "last-month", _period)

    def source(self, given: str | None) -> Sections:
        """Which catalogue."""
        from difffusr.pipeline.config import CATALOGUES

        question = f"source: {', '.join(CATALOGUES)}, or a URL or file"
        return self._answer("--source", given, question, "earth-search", self._catalogue)

    def _catalogue(self, text: str) -> Sections:
        from difffusr.pipeline.config import CATALOGUES

        if known := CATALOGUES.get(text.lower()):
            return {"source": {"stac_api": known.url, "collection": known.collection}}
        bare = re.split(r"[?#]", text)[0].lower() if is_url(text) else text.lower()
        if text.lower().startswith("http") and not bare.endswith((".json", ".geojson", ".parquet")):
            return {"source": {"stac_api": text}}
        there = self._path(text, f"a catalog.json or a file of items, or one of {', '.join(CATALOGUES)}")
        items = bare.endswith((".geojson", ".parquet")) or (not is_url(text) and _holds_items(Path(text).expanduser()))
        return {"source": {"items" if items else "static_catalog": there}}

    def store(self, given: str | None) -> Sections:
        """Where the cube will be."""
        default = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.file.stem).strip('-._') or 'cube'}.zarr"
        if given is None and not self.ask and self.defaults:
            return {"store": {"url": default}}  # beside the file, wherever this is typed
        return self._answer(
            "--store", given, "store: a path, or a URL such as s3://bucket/cube.zarr",
            os.path.normpath(self.file.parent / default), lambda text: {"store": {"url": self._place(text)}},
        )  # fmt: skip

    def model(self, preset: str | None, stage1: str | None, fusion: str | None) -> Sections:
        """Which networks."""
        paths = {"stage1": stage1, "fusion": fusion}
        if preset is None and any(paths.values()):
            preset = "published"
        chosen: list[str] = []

        def named(text: str) -> Sections:
            chosen[:] = [text]
            if text == "published":  # the weights are asked for next
                return {}
            return {"model": {"preset": text, **{key: self._weights(path) for key, path in paths.items() if path}}}

        found = self._answer(
            "--preset", preset, "networks: small (on any machine) or published (weights of yours)", "small", named
        )
        if chosen != ["published"]:
            return found
        model = {"preset": "published"}
        for key, what in (("stage1", "super-resolution"), ("fusion", "fusion")):
            found = self._answer(
                f"--{key}", paths[key], f"file of the published {what} weights", None,
                lambda text, key=key: {"model": {**_PUBLISHED, key: self._weights(text)}},  # type: ignore[misc]
            )  # fmt: skip
            model |= {key: value for key, value in found.get("model", {}).items() if value != _UNKNOWN}
        return {"model": model}

    def _weights(self, text: str) -> str:
        return self._path(text, "a file with weights")

    def compute(self, given: str | None) -> Sections:
        """One machine or a cluster."""
        question = "runs on: here, or the address of a Ray cluster (auto: the one of this machine)"
        return self._answer(
            "--cluster", given, question, "here",
            lambda text: {} if text == "here" else {"compute": {"address": text}},
        )  # fmt: skip

    def _path(self, text: str, what: str) -> str:
        """As `_place`, of a file that is there. Raises ConfigError."""
        if not is_url(text) and not text.lower().startswith("file:") and not Path(text).expanduser().exists():
            raise ConfigError(f"found '{text}', expected {what}: there is no such file")
        return self._place(text)

    def _place(self, text: str) -> str:
        """A path as the file has to say it, from its own folder; URLs, and paths from the root, as they are."""
        if is_url(text) or os.path.isabs(text) or text.startswith("~") or re.match(r"[A-Za-z][\w+.-]*:|.*\\", text):
            return text
        found = os.path.relpath(text, self.file.parent)
        return f"./{found}" if ":" in found.partition("/")[0] else found


#: Sections beside which one that is asked for is checked.
_VALID: Sections = {
    "name": "run",
    "area": {"bbox": [0, 0, 1, 1]},
    "period": "2024-06",
    "source": {"items": "items.json"},
    "store": {"url": "cube.zarr"},
}

_UNKNOWN = "unknown.ckpt"

#: Published networks whose weights are still to be named.
_PUBLISHED = {"preset": "published", "stage1": _UNKNOWN, "fusion": _UNKNOWN}

#: Options whose defaults need nobody's word.
_OPTIONAL = ("--preset", "--cluster", "--country")

#: What is said to be missing, where it is not the option's name.
_MISSING = {"--bbox": "the area (--bbox, --tiles or --area)"}


def _box(text: str) -> Sections:
    parts = re.split(r"[,\s]+", text.strip("[] "))
    try:
        return {"area": {"bbox": [float(part) for part in parts]}}
    except ValueError:
        raise ConfigError(
            f"found '{text}', expected west,south,east,north in degrees, such as 6.0,49.5,6.2,49.7"
        ) from None


def _tiles(text: str) -> Sections:
    return {"area": {"tiles": [part.upper() for part in re.split(r"[,\s]+", text) if part]}}


def _period(text: str) -> Sections:
    return {"period": int(text) if re.fullmatch(r"\d{4}", text) else text}


def _holds_items(file: Path) -> bool:
    """Whether a JSON file is a collection of items; else it is a catalogue, or what only `plan` can tell."""
    import json

    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("type") == "FeatureCollection"
