"""A shell completes commands, options and files at once: nothing heavy is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call

HEAVY = {"torch", "ray", "geopandas", "numpy", "zarr", "rasterio", "xarray", "pandas", "pyarrow", "fsspec"}


@pytest.mark.parametrize(
    ("typed", "offered", "others"),
    [
        ("difffusr st", {"status", "stac"}, {"run"}),
        ("difffusr ", {"init", "plan", "run", "schema", "train", "evaluate"}, set()),
        ("difffusr train ", {"sr", "fusion"}, {"status"}),
        ("difffusr run --j", {"--json", "--json-log"}, {"--period"}),
        ("difffusr init --o", {"--overwrite"}, {"--bbox"}),
    ],
)
def test_words_are_completed_and_nothing_heavy_is_imported(tmp_path: Path, monkeypatch, typed, offered, others) -> None:
    monkeypatch.setenv("_DIFFFUSR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    called = call(tmp_path)
    words = set(called.out.split())
    assert called.code == 0, called.err
    assert offered <= words
    assert not others & words
    assert not HEAVY & {name.partition(".")[0] for name in called.modules}
    assert called.peak_mb < 130


def completion(folder: Path, *words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command called from bash."""
    line = " ".join((str(Path(sys.executable).with_name("difffusr")), *words))
    return subprocess.run(
        ["bash", "-c", f"{line}; exit $?"],
        env={**os.environ, "HOME": str(home or folder)},
        capture_output=True,
        text=True,
    )


def test_the_shell_s_file_gets_a_line_and_the_script_works(tmp_path: Path) -> None:
    assert completion(tmp_path, "--install-completion").returncode == 0
    assert "difffusr.sh" in (tmp_path / ".bashrc").read_text()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", "source .bashrc; COMP_WORDS=(difffusr hist); COMP_CWORD=1; _difffusr_completion difffusr; "
                       'echo "${COMPREPLY[@]}"'],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert ended.stdout == "history\n", ended.stderr
    assert "complete -o default -F _difffusr_completion difffusr" in completion(tmp_path, "--show-completion").stdout


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    ended = completion(tmp_path, "--install-completion", home=home)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: ")
