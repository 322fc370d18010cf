"""`difffusr init` writes what `plan` accepts, from flags or from answers; `difffusr schema` says what that may be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import yaml
from command_line import call
from jsonschema import Draft202012Validator
from shapely.geometry import box, mapping
from terminal import Shown, show, wait_until_it_sleeps

from difffusr.pipeline.commands import cli
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.schema import MODELINE, SCHEMA_FILE, config_schema, schema_text
from difffusr.pipeline.config.sections import RunConfig

BOX = "103.7,17.87,103.76,17.97"


@pytest.fixture
def typed(capsys, monkeypatch, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in the test's folder; exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def begun(typed, tmp_path: Path) -> Callable[..., RunConfig]:
    """`init` with these options besides `--yes`; the configuration that it wrote, looked at in every way."""

    def run(*words: str | Path, file: str = "run.yaml") -> RunConfig:
        code, _out, err = typed("init", file, *words, "--yes")
        assert (code, err) == (0, "")
        text = (tmp_path / file).read_text()
        assert text.startswith(f"{MODELINE}\n")
        assert sum(line.lstrip().startswith("#") for line in text.splitlines()) > 20
        assert max(map(len, text.splitlines())) <= 120
        assert list(Draft202012Validator(config_schema()).iter_errors(yaml.safe_load(text))) == []
        assert ((tmp_path / file).parent / SCHEMA_FILE).read_text() == schema_text()
        return load_config(tmp_path / file)

    return run


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Files that options may name."""
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog"}))
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    for name in ("items.parquet", "a.ckpt", "b.ckpt"):
        (tmp_path / name).touch()
    (tmp_path / "area.geojson").write_text(json.dumps(mapping(box(6, 49, 7, 50))))
    countries = {
        "ISO_A3": ["LUX", "BEL", "CIV"],
        "NAME": ["Luxembourg", "Belgium", "Côte d'Ivoire"],
        "POP": [1, 2, 3],
        "geometry": [box(6, 49, 7, 50), box(4, 50, 6, 51), box(-8, 5, -3, 10)],
    }
    gpd.GeoDataFrame(countries, crs="EPSG:4326").to_file(tmp_path / "countries.gpkg", layer="countries")
    return tmp_path


def test_of_an_area_alone_the_rest_has_defaults(begun) -> None:
    config = begun("--bbox", BOX)
    assert config.area.bbox == (103.7, 17.87, 103.76, 17.97)
    assert config.source.stac_api == "https://earth-search.aws.element84.com/v1"
    assert (config.model.preset, config.compute.address, config.name) == ("small", None, "run")
    assert config.store.url.endswith("/run.zarr")


@pytest.mark.parametrize(
    ("words", "area"),
    [
        (["--bbox", "[6.0, 49.5, 6.2, 49.7]"], {"bbox": (6.0, 49.5, 6.2, 49.7)}),
        (["--bbox", "-10 -5 -9 -4"], {"bbox": (-10.0, -5.0, -9.0, -4.0)}),
        (["--tiles", "48QUE"], {"tiles": ("48QUE",)}),
        (["--tiles", "48que, 48QVE"], {"tiles": ("48QUE", "48QVE")}),
        (["--area", "area.geojson"], {"geojson": "area.geojson"}),
        (["--area", "countries.gpkg"], {"file": "countries.gpkg"}),
        (["--area", "countries.gpkg", "--layer", "countries"], {"file": "countries.gpkg", "layer": "countries"}),
        (
            ["--area", "countries.gpkg", "--where", "POP > 1"],
            {"file": "countries.gpkg", "where": "POP > 1"},
        ),
        (["--area", "countries.gpkg", "--country", "lux"], {"where": "\"ISO_A3\" = 'LUX'"}),
        (["--area", "countries.gpkg", "--country", "Belgium"], {"where": "\"NAME\" = 'Belgium'"}),
        (["--area", "countries.gpkg", "--country", "Côte d'Ivoire"], {"where": "\"NAME\" = 'Côte d''Ivoire'"}),
    ],
)
def test_an_area_of_every_kind(begun, places: Path, words: list[str], area: dict[str, Any]) -> None:
    from difffusr.pipeline.geo import geometry_of

    found = begun(*words).area
    geometry_of(found)
    for key, value in area.items():
        expected = str(places / value) if key in ("geojson", "file") else value
        assert getattr(found, key) == expected


@pytest.mark.parametrize(
    ("source", "key", "value"),
    [
        ("earth-search", "stac_api", "https://earth-search.aws.element84.com/v1"),
        ("Planetary-Computer", "stac_api", "https://planetarycomputer.microsoft.com/api/stac/v1"),
        ("cdse", "stac_api", "https://stac.dataspace.copernicus.eu/v1"),
        ("https://stac.example/v1?token=a", "stac_api", "https://stac.example/v1?token=a"),
        ("https://host.example/catalog.json", "static_catalog", "https://host.example/catalog.json"),
        ("s3://bucket/catalog.json", "static_catalog", "s3://bucket/catalog.json"),
        ("s3://bucket/items.parquet", "items", "s3://bucket/items.parquet"),
        ("catalog.json", "static_catalog", "{}/catalog.json"),
        ("items.json", "items", "{}/items.json"),
        ("./items.parquet", "items", "{}/items.parquet"),
    ],
)
def test_a_source_of_every_kind(begun, places: Path, source: str, key: str, value: str) -> None:
    assert getattr(begun("--bbox", BOX, "--source", source).source, key) == value.format(places)


@pytest.mark.parametrize("period", ["2024-06", "2024", "2024-06-05_2024-07-04", "last-month"])
def test_a_period_of_every_kind(begun, period: str) -> None:
    label = begun("--bbox", BOX, "--period", period).period.label
    assert label == period or period == "last-month"


@pytest.mark.parametrize("file", ["deep/er/run.yaml", "run.yaml", "../elsewhere.yaml", "a b.yml"])
def test_paths_mean_the_same_from_the_file_as_where_they_are_typed(begun, places: Path, monkeypatch, file: str) -> None:
    (places / "deep" / "er").mkdir(parents=True)
    words = ("--area", "area.geojson", "--source", "catalog.json", "--store", "out/cube.zarr", "--preset", "published")
    config = begun(*words, "--stage1", "a.ckpt", "--fusion", "b.ckpt", file=file)
    assert config.area.geojson == str(places / "area.geojson")
    assert config.source.static_catalog == str(places / "catalog.json")
    assert config.store.url == str(places / "out/cube.zarr")
    assert (config.model.stage1, config.model.fusion) == (str(places / "a.ckpt"), str(places / "b.ckpt"))


def test_a_cluster_a_name_and_a_bucket_are_taken(begun) -> None:
    config = begun("--bbox", BOX, "--cluster", "auto", "--name", "lao", "--store", "s3://bucket/lao.zarr")
    assert (config.compute.address, config.name, config.store.url) == ("auto", "lao", "s3://bucket/lao.zarr")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "init: no terminal to ask at: missing the area (--bbox, --tiles or --area), --period, --source, --store;"),
        (["--bbox", BOX], "init: no terminal to ask at: missing --period, --source, --store; --yes takes"),
        (["--yes"], "init: missing the area (--bbox, --tiles or --area)"),
        (["--yes", "--bbox", BOX, "--preset", "published"], "init: missing --stage1, --fusion"),
        (["--yes", "--bbox", "1,2,3"], "--bbox: area.bbox: found [1.0, 2.0, 3.0], expected [west, south"),
        (["--yes", "--bbox", "a,b,c,d"], "--bbox: found 'a,b,c,d', expected west,south,east,north"),
        (["--yes", "--bbox", "10,50,5,55"], "--bbox: area.bbox: found [10.0, 50.0, 5.0, 55.0]"),
        (["--yes", "--tiles", "48QXX"], "--tiles: area.tiles.0: found '48QXX'"),
        (["--yes", "--bbox", BOX, "--tiles", "48QUE"], "--bbox and --tiles: give one of them"),
        (["--yes", "--bbox", BOX, "--country", "LUX"], "--country: only valid with --area"),
        (["--yes", "--area", "nowhere.gpkg"], "--area: found 'nowhere.gpkg', expected a file with polygons"),
        (["--yes", "--area", "catalog.json"], "--area: area.geojson: "),
        (
            ["--yes", "--area", "countries.gpkg", "--country", "Luxemburg"],
            "nothing is called 'Luxemburg', did you mean 'Luxembourg'?",
        ),
        (["--yes", "--area", "countries.gpkg", "--where", "POP >"], "area.where 'POP >' is not understood"),
        (["--yes", "--area", "countries.gpkg", "--layer", "towns"], "no layer 'towns' (area.layer)"),
        (["--yes", "--bbox", BOX, "--period", "2024-13"], "--period: period: found '2024-13'"),
        (["--yes", "--bbox", BOX, "--source", "earthsearch"], "--source: found 'earthsearch', expected a catalog.json"),
        (["--yes", "--bbox", BOX, "--store", "s3://me:SECRET@bucket/a"], "--store: store.url: found credentials"),
        (["--yes", "--bbox", BOX, "--preset", "large"], "--preset: model.preset: found 'large'"),
        (["--yes", "--bbox", BOX, "--stage1", "c.ckpt", "--fusion", "b.ckpt"], "--stage1: found 'c.ckpt'"),
        (["--yes", "--bbox", BOX, "--name", "../x"], "--name: name: found '../x'"),
    ],
)
def test_what_is_wrong_or_missing_is_one_line_and_nothing_is_written(
    typed, places: Path, words: list[str], said: str
) -> None:
    code, _out, err = typed("init", *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert "SECRET" not in err
    assert not (places / "run.yaml").exists()
    assert not (places / SCHEMA_FILE).exists()


def test_a_file_is_replaced_only_with_overwrite(typed, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("mine")
    code, _out, err = typed("init", "--bbox", BOX, "--yes")
    assert (code, err) == (2, "error: run.yaml: is there already; give another FILE, or --overwrite to replace it\n")
    assert (tmp_path / "run.yaml").read_text() == "mine"
    assert typed("init", "--bbox", BOX, "--yes", "--overwrite")[0] == 0
    assert load_config(tmp_path / "run.yaml").area.bbox is not None


@pytest.mark.parametrize(
    ("before", "kept"), [('{"$id": "urn:difffusr:run-configuration"}', False), ("{}", True), ("mine", True)]
)
def test_a_schema_of_an_earlier_version_is_renewed_another_file_stays(typed, tmp_path, before, kept) -> None:
    (tmp_path / SCHEMA_FILE).write_text(before)
    code, _out, err = typed("init", "--bbox", BOX, "--yes")
    assert code == 0
    assert (tmp_path / SCHEMA_FILE).read_text() == (before if kept else schema_text())
    assert ("is another file and stays" in err) == kept


def test_a_folder_that_is_not_there_is_said(typed) -> None:
    code, _out, err = typed("init", "nowhere/run.yaml", "--bbox", BOX, "--yes")
    assert (code, err) == (1, "error: nowhere/run.yaml: cannot be written (no such folder); choose another FILE\n")


def test_the_schema_is_printed_or_written(typed, tmp_path: Path) -> None:
    assert typed("schema") == (0, schema_text(), "")
    assert typed("schema", "s.json") == (0, "", "")
    assert (tmp_path / "s.json").read_text() == schema_text()
    code, _out, err = typed("schema", "nowhere/s.json")
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("words", ["init --help", "schema", f"init --bbox {BOX} --yes"])
def test_nothing_heavy_is_imported(tmp_path: Path, words: str) -> None:
    called = call(tmp_path, *words.split())
    assert called.code == 0, called.err
    heavy = {"torch", "ray", "geopandas", "numpy", "zarr", "rasterio", "xarray", "pandas", "scipy", "dask", "pystac"}
    assert not heavy & {name.partition(".")[0] for name in called.modules}


def answered(folder: Path, monkeypatch, answers: list[tuple[str, str]], *words: str) -> Shown:
    """`init` at a terminal: each answer is typed once what stands before it has been asked."""
    monkeypatch.chdir(folder)
    left, seen = list(answers), [0]

    def type_answer(sent: str, press: Callable[[bytes], object], process: int) -> None:
        while left and left[0][0] in sent[seen[0] :] and sent.endswith(": "):
            seen[0] = len(sent)
            wait_until_it_sleeps(process)
            press(left.pop(0)[1].encode())

    program = Path(sys.executable).with_name("difffusr")
    shown = show([str(program), "init", *words], 120, when=type_answer, timeout_s=30)
    assert not left, shown.screen.lines
    return shown


def test_a_terminal_is_asked_and_asked_again(monkeypatch, places: Path) -> None:
    answers = [
        ("area", "20,30\n"),
        ("found [20.0, 30.0]", "countries.gpkg\n"),
        ("which country", "Luxemburg\n"),
        ("did you mean 'Luxembourg'?", "Luxembourg\n"),
        ("period", "2024-13\n"),
        ("found '2024-13'", "2024-06\n"),
        ("source", "nowhere.json\n"),
        ("there is no such file", "catalog.json\n"),
        ("store", "\n"),
        ("networks", "published\n"),
        ("super-resolution weights", "a.ckpt\n"),
        ("fusion weights", "b.ckpt\n"),
        ("runs on", "auto\n"),
    ]
    shown = answered(places, monkeypatch, answers, "lux.yaml")
    assert shown.code == 0
    assert "Traceback" not in shown.sent
    config = load_config(places / "lux.yaml")
    assert (config.area.where, config.period.label) == ("\"NAME\" = 'Luxembourg'", "2024-06")
    assert config.source.static_catalog == str(places / "catalog.json")
    assert config.store.url == str(places / "lux.zarr")
    assert (config.model.preset, config.model.fusion) == ("published", str(places / "b.ckpt"))
    assert config.compute.address == "auto"


def test_only_what_is_not_given_is_asked(monkeypatch, tmp_path: Path) -> None:
    answers = [("area", "48QUE 48QVE\n"), ("networks", "\n"), ("runs on", "\n")]
    words = ("--period", "2024-06", "--source", "cdse", "--store", "c.zarr")
    assert answered(tmp_path, monkeypatch, answers, *words).code == 0
    assert load_config(tmp_path / "run.yaml").area.tiles == ("48QUE", "48QVE")


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_whoever_gives_up_leaves_nothing(monkeypatch, tmp_path: Path, key: str) -> None:
    shown = answered(tmp_path, monkeypatch, [("area", key)])
    assert shown.code == 130
    assert "Traceback" not in shown.sent
    assert list(tmp_path.iterdir()) == []
