"""Settings of a training are either understood whole or refused in one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.settings import (
    SuperResolutionSettings,
    load_settings,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 5", "out: missing"),
        ("out: o\ndata: [{path: hr}]", r"data\[0\].gsd_m: found null"),
        ("out: o\ndata: [{path: hr, gsdm: 1}]", r"data\[0\].gsdm: unknown key, did you mean 'gsd_m'"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nworkers: {cpu: 2}", "workers.cpu: unknown key, did you mean 'cpus'"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nbatch: 3", "batch: found 3, expected a power of 2"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nnetwork: large", "network: found 'large', expected 'small'"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nnetwork: {unet: {depth: 2}}", "unet.depth"),
        ("out: o\ndata: [{path: hr, gsd_m: 2}]\nnetwork: {generation: v1}", "network: .*generation"),
        ("out: o\ndata: [{path: hr, gsd_m: 2, rows: [0.6, 0.6]}]", r"data\[0\].rows: found \[0.6, 0.6\]"),
        ("out: o\ndata: [{path: hr, gsd_m: 2, rows: [0, 1.5]}]", r"data\[0\].rows: found \[0.0, 1.5\]"),
        ("out: o\ndata: [{path: hr, gsd_m: 2, rgb: [1, 2, x]}]", r"data\[0\].rgb.2: found 'x'"),
        ("out: o\nout: p", "line 2, column 1: not valid YAML: key 'out' is given twice"),
        ("out: o\ndata: []", "data: found"),
        ("- a list", "found a list"),
        ("out: [", "not valid YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, said):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_settings(SuperResolutionSettings, tmp_path / "t.yaml")


def test_paths_are_relative_to_the_file_and_options_replace_them(tmp_path):
    (tmp_path / "t.yaml").write_text("out: o\nroot: data\ndata: [{path: hr, gsd_m: 2}]")
    assert load_settings(SuperResolutionSettings, tmp_path / "t.yaml").root == str(tmp_path / "data")
    changed = load_settings(SuperResolutionSettings, tmp_path / "t.yaml", {"root": Path("/there"), "steps": 9})
    assert (changed.root, changed.steps, changed.out) == ("/there", 9, str(tmp_path / "o"))


def test_a_section_with_everything_commented_out_has_the_defaults(tmp_path):
    (tmp_path / "t.yaml").write_text("out: o\ndata: [{path: hr, gsd_m: 2}]\nworkers:\n#  count: 2\n")
    assert load_settings(SuperResolutionSettings, tmp_path / "t.yaml").workers.count == 1
