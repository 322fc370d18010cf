"""`make gpu` as far as a CPU can try it: its dry run where little is installed, and by fakes what no CPU reaches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import ROOT, SHARED
from gpu import equality, parts, script, speed, start
from gpu.parts import NotHereError, Part, Row, Setting, carry_out

from difffusr.pipeline.run.cost.add_gpu_rates import rates_of

GPU = ROOT / "tests" / "bench" / "gpu"

#: What a machine with a GPU may lack: everything but torch, NumPy, Triton and what trainings draw curves with.
MISSING = (
    "difffusr", "ray", "rasterio", "rich", "pydantic", "psutil", "safetensors", "lazy_loader", "yaml", "humanize",
    "zarr", "dask", "xarray", "typer", "fsspec", "pandas", "pyarrow", "scipy", "shapely", "geopandas", "pyproj",
    "pytest",
)  # fmt: skip

#: In the environment of every process of the script: packages are found beside the installed ones only.
SITE = f"""
import sys
from importlib.machinery import PathFinder

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name not in {MISSING}:
            return self.finder.find_spec(name, path, target)
        return PathFinder.find_spec(name, [place for place in sys.path if "site-packages" not in place])

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


@dataclass(frozen=True)
class Dry:
    """How a dry run ended: exit code, what it printed, what it wrote."""

    code: int
    out: str
    written: dict[str, Any]

    def rows(self, part: str) -> list[Row]:
        found = self.written["parts"][part]
        assert found["state"] == "done", found["why"]
        rows: list[Row] = found["rows"]
        return rows


def script_in(folder: Path, *words: str) -> Dry:
    """Call the script where little is installed."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(GPU), "--dry-run", "--out", str(folder), *words]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=280)
    file = folder / "gpu.json"
    assert file.exists(), done.stderr[-2000:]
    return Dry(done.returncode, done.stdout + done.stderr, json.loads(file.read_text()))


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Dry:
    return script_in(tmp_path_factory.mktemp("dry"), "--seconds", "270")


# the dry run


def test_where_little_is_installed_every_part_does_what_it_can(dry: Dry):
    assert dry.code == 0, dry.out[-3000:]
    assert dry.written["dry_run"] is True
    assert list(dry.written["parts"]) == [part.name for part in script.PARTS]
    states = {name: part["state"] for name, part in dry.written["parts"].items()}
    expected = dict.fromkeys(states, "done") | {"run": "not here"}
    if not (SHARED / "conformance" / "manifest.json").is_file():
        expected["conformance"] = "not here"
    assert states == expected
    why = dry.written["parts"]["run"]["why"]
    assert why.startswith("not installed: ")
    assert {"ray", "rasterio", "pydantic"} <= set(why.removeprefix("not installed: ").split(", "))


def test_the_machine_is_described_with_its_peaks(dry: Dry):
    facts = {row["what"]: row["value"] for row in dry.rows("machine")}
    assert facts["torch"] == torch.__version__
    assert facts["ray"]  # its metadata are there, though it cannot be imported
    for peak in ("peak of bfloat16 products, TFLOP/s", "peak of float32 products, TFLOP/s"):
        assert 1e-4 < facts[peak] < 100
    assert facts["copy within the device, TB/s"] > 1e-4


def test_kernels_noise_and_networks_are_equal(dry: Dry):
    rows = dry.rows("equality")
    assert all(row["ok"] for row in rows)
    kernels = [row["what"] for row in rows if row["what"].startswith("kernel ")]
    names = ("combine", "combine, unfolding", "convolve", "depthwise", "normalise")
    assert len(kernels) == 2 * len(names)
    assert all(any(what.startswith(f"kernel {name}, ") for what in kernels) for name in names)
    networks = [row for row in rows if "same_bits_twice" in row]
    assert len(networks) == len(equality.DRY_CASES)
    assert all(row["same_bits_in_any_fill"] and row["same_bits_made_anew"] for row in networks)
    assert any("ground noise" in row["what"] for row in rows)


def test_speed_is_in_chips_and_square_kilometres(dry: Dry):
    eager, fused, looped, plain = dry.rows("speed")
    assert "taps in a loop" in looped["what"]
    assert looped["chips_per_s"] > 0
    assert eager["km2_per_s"] == pytest.approx(eager["chips_per_s"] * 0.06**2)
    assert fused["times_eager_float32"] == pytest.approx(fused["chips_per_s"] / eager["chips_per_s"])
    assert fused["same_bits"]
    assert fused["tflop_per_chip"] > 0
    assert plain["chips_per_s"] > 0
    assert {"share_of_peak", "first_call_s"} <= set(fused)


def test_speed_can_be_added_to_the_table_of_what_gpus_do(dry: Dry):
    assert dry.written["machine"]["torch"] == torch.__version__
    rates = rates_of({**dry.written, "machine": {**dry.written["machine"], "gpu": "A GPU"}})
    assert [(rate.models, rate.preset, rate.execution, rate.batch) for rate in rates] == [
        ("published", "fast", "eager", 1),
        ("published", "fast", "fused", 2),
    ]
    assert {rate.gpu for rate in rates} == {"A GPU"}
    assert str(rates[0].measured) == dry.written["measured"][:10]
    assert rates[0].version == dry.written["version"]


def test_time_is_told_by_kind_and_by_kernel(dry: Dry):
    rows = dry.rows("kernels")
    assert {"convolutions and matrix products", "fused kernels", "waiting"} <= {row["what"] for row in rows}
    assert any(row["what"] == "aten::mkldnn_convolution" or "conv" in row["what"] for row in rows[5:])


def test_a_start_is_told_step_by_step(dry: Dry):
    (row,) = dry.rows("start")
    steps = [row[f"{name.replace(' ', '_')}_s"] for name in start.STEPS]
    assert all(step >= 0 for step in steps)
    assert row["to_first_chip_s"] == pytest.approx(sum(steps))
    assert row["imports_s"] > 0.05


def test_published_numbers_are_met_in_float32_and_stated_in_bfloat16(dry: Dry):
    if dry.written["parts"]["conformance"]["state"] == "not here":
        pytest.skip("the published numbers are not there")
    rows = dry.rows("conformance")
    exact = [row for row in rows if "float32" in row["what"]]
    assert len(exact) == len(rows) / 2
    assert all(row["ok"] for row in exact)
    assert all(row["allowed"] == "stated" and row["difference_max"] > 1e-4 for row in rows if row not in exact)


def test_trainings_make_steps(dry: Dry):
    rows = dry.rows("training")
    assert [row["what"].partition(",")[0] for row in rows] == ["stage 1", "fusion"]
    assert all(row["steps_per_s"] > 0 and 0 < row["share_of_batches"] < 1 for row in rows)


def test_a_dry_run_aims_at_what_it_was_aimed_at(dry: Dry):
    aimed = {row["what"]: row for row in dry.written["targets"]}
    assert "fast: km²/s" in aimed
    assert not aimed["fast: km²/s"]["met"]
    assert "Aimed at" in dry.out


@pytest.mark.slow
def test_the_demonstrations_world_is_run_to_its_end_and_compared(tmp_path: Path):
    command = [sys.executable, str(GPU), "--dry-run", "--with-run", "--parts", "run", "--seconds", "1500"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    rows = {row["what"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["parts"]["run"]["rows"]}
    assert rows["float32, GPU and CPU"]["difference_max"] == 0  # both of them on cores
    assert rows["float32, GPU and CPU"]["ok"]
    assert 0 < rows["bfloat16, GPU and CPU's float32"]["difference_mean"] < 20
    one = rows["CPU, bfloat16"]
    assert one["chips"] > 1
    assert 0 < one["imports_s"] < one["planned_s"] < one["first_chip_s"] <= one["last_chip_s"] < one["total_s"]


# parts


def setting(folder: Path, **changes: Any) -> Setting:
    return Setting("cpu", True, folder, **changes)


def ends_well(given: Setting) -> Iterator[Row]:
    yield {"what": "one"}
    yield {"what": "two", "ok": True}


def fails(given: Setting) -> Iterator[Row]:
    yield {"what": "before"}
    raise RuntimeError("\n  a kernel was wrong\nand much more")


def is_killed(given: Setting) -> Iterator[Row]:
    yield {"what": "before"}
    time.sleep(0.2)  # the row is on its way
    os.kill(os.getpid(), signal.SIGKILL)


def exits(given: Setting) -> Iterator[Row]:
    yield {"what": "before"}
    time.sleep(0.2)
    os._exit(7)


def hangs(given: Setting) -> Iterator[Row]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"what": "started", "pid": child.pid}
    signal.pause()


def is_not_here(given: Setting) -> Iterator[Row]:
    raise NotHereError("not installed: ray")
    yield {}


def is_off(given: Setting) -> Iterator[Row]:
    yield {"what": "compared", "ok": False}


def says_nothing(given: Setting) -> Iterator[Row]:
    yield {"what": "before"}
    raise ValueError


def part(name: str, function: Callable[[Setting], Iterator[Row]], seconds: float = 30, least: float = 0) -> Part:
    return Part(name, name, function, seconds, least)


@pytest.mark.parametrize(
    ("function", "state", "why", "rows", "good"),
    [
        (ends_well, "done", "", 2, True),
        (fails, "failed", "RuntimeError: a kernel was wrong", 1, False),
        (says_nothing, "failed", "ValueError", 1, False),
        (is_killed, "failed", "its process ended with exit code -9", 1, False),
        (exits, "failed", "its process ended with exit code 7", 1, False),
        (is_not_here, "not here", "not installed: ray", 0, True),
        (is_off, "done", "", 1, False),
    ],
)
def test_a_part_ends_as_it_ends_and_leaves_its_rows(tmp_path, function, state, why, rows, good):
    kept: list[Row] = []
    outcome = carry_out(part("one", function), setting(tmp_path), 60, kept.append)
    assert (outcome.state, outcome.why, outcome.good) == (state, why, good)
    assert outcome.rows == kept
    assert len(kept) == rows


def test_a_part_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "GRACE_S", 0.2)
    begun = time.monotonic()
    given = Setting("cuda", False, tmp_path)
    outcome = carry_out(part("one", hangs, seconds=0.5), given, 60, lambda row: None)
    assert (outcome.state, outcome.why) == ("failed", "took longer than the 1 s that it had, and was ended")
    assert time.monotonic() - begun < 15
    pid = outcome.rows[0]["pid"]
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not fetched does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (
            RuntimeError("CUDA error: an illegal memory access\nCompile with …"),
            "RuntimeError: CUDA error: an illegal memory access",
        ),
        (AssertionError(), "AssertionError"),
        (ImportError("No module named 'triton'"), "ImportError: No module named 'triton'"),
    ],
)
def test_what_is_not_possible_is_a_row_of_its_own(error, note):
    def function() -> Row:
        raise error

    assert parts.tried("one", function) == {"what": "one", "note": note, "ok": False}
    assert parts.tried("one", lambda: {"what": "two"}) == {"what": "two"}


def test_what_is_missing_ends_the_part():
    def function() -> Row:
        raise NotHereError("no ray")

    with pytest.raises(NotHereError):
        parts.tried("one", function)


def test_a_batch_that_does_not_fit_is_said_and_larger_ones_are_left_out(tmp_path, monkeypatch):
    def measured(asked: speed.Asked, *_: Any) -> Row:
        if asked.batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"what": asked.preset, "chips_per_s": 2.0 * asked.batch}

    cases = [speed.Asked("fast", "bfloat16", "fused", 30, batch) for batch in (4, 8, 16)]
    monkeypatch.setattr(speed, "DRY_CASES", (speed.Asked("fast", "float32", "eager", 30, 1), *cases))
    monkeypatch.setattr(speed, "measured", measured)
    monkeypatch.setattr(speed, "plain", lambda *_: {"what": "plain"})
    monkeypatch.setattr(speed, "looped", lambda *_: {"what": "looped"})
    rows = list(speed.rows(setting(tmp_path)))
    notes = [row.get("note") for row in rows]
    assert notes == [None, None, "fills the memory", "a smaller batch fills the memory", None, None]
    assert rows[1]["times_eager_float32"] == 4
    assert all(row.get("ok", True) for row in rows)


@pytest.mark.parametrize(("left", "dropped"), [(9.9, True), (10.1, False), (-3, True), (0, True), (60, False)])
def test_a_part_for_which_no_time_is_left_is_dropped_with_words(tmp_path, left, dropped):
    outcome = carry_out(part("one", ends_well, least=10), setting(tmp_path), left, lambda row: None)
    assert (outcome.state == "dropped") is dropped
    assert outcome.good
    assert dropped == ("it takes 10 at the least" in outcome.why)


def test_a_part_knows_how_much_time_it_has(tmp_path):
    def asks(given: Setting) -> Iterator[Row]:
        yield {"what": "left", "left": given.left, "has": given.has(100)}

    (row,) = carry_out(part("one", asks, seconds=50), Setting("cuda", False, tmp_path), 20, lambda row: None).rows
    assert 15 < row["left"] <= 20
    assert row["has"] is False


# the script


@pytest.mark.parametrize(
    ("functions", "code", "states"),
    [
        ([ends_well, ends_well], 0, ["done", "done"]),
        ([fails, ends_well], 1, ["failed", "done"]),
        ([is_off, is_not_here], 1, ["done", "not here"]),
        ([is_not_here, ends_well], 0, ["not here", "done"]),
        ([exits, fails, ends_well], 1, ["failed", "failed", "done"]),
    ],
)
def test_the_exit_code_says_whether_all_is_as_it_should_be(tmp_path, capfd, functions, code, states):
    some = [part(f"part{i}", function) for i, function in enumerate(functions)]
    assert script.main(["--dry-run", "--out", str(tmp_path)], some) == code
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [found["state"] for found in written["parts"].values()] == states
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert ("not as it should be" in capfd.readouterr().out) is (code == 1)


def test_without_a_gpu_nothing_is_measured(tmp_path, capfd):
    machine = script.PARTS[0]
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert script.main(["--out", str(tmp_path)]) == 2
    assert "sees no GPU; --dry-run tries the script on the CPU" in capfd.readouterr().out
    assert list(json.loads((tmp_path / "gpu.json").read_text())["parts"]) == [machine.name]


def test_when_time_is_out_later_parts_are_dropped(tmp_path, capfd):
    some = [part("first", ends_well), part("second", ends_well, least=1000), part("third", ends_well)]
    assert script.main(["--dry-run", "--out", str(tmp_path), "--seconds", "100"], some) == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [found["state"] for found in written["parts"].values()] == ["done", "dropped", "done"]
    assert "dropped: no time left" in capfd.readouterr().out


def test_what_was_measured_is_written_while_the_next_is_measured(tmp_path):
    def looks(given: Setting) -> Iterator[Row]:
        yield {"what": "mine"}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            seen = json.loads((tmp_path / "gpu.json").read_text())["parts"]
            if seen.get("second", {}).get("rows"):
                break
            time.sleep(0.01)
        yield {"what": "seen", "seen": seen, "told": dict(given.found)}

    script.main(["--dry-run", "--out", str(tmp_path)], [part("first", ends_well), part("second", looks)])
    row = json.loads((tmp_path / "gpu.json").read_text())["parts"]["second"]["rows"][1]
    assert len(row["seen"]["first"]["rows"]) == 2
    assert row["seen"]["second"] == {
        "state": "failed", "seconds": 0.0, "why": "was not finished", "rows": [{"what": "mine"}],
    }  # fmt: skip
    assert [one["what"] for one in row["told"]["first"]] == ["one", "two"]


@pytest.mark.parametrize(
    "words", [["--parts", "sped"], ["--parts", ""], ["--seconds", "0"], ["--seconds", "x"], ["-q"]]
)
def test_wrong_usage_is_said(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main([*words, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


def test_parts_and_their_times_fit():
    assert sum(part.least for part in script.PARTS) < script.SECONDS <= 480
    assert all(part.least < part.seconds for part in script.PARTS)
    for part in script.PARTS:
        assert (GPU / f"{part.name}.py").is_file()


def test_make_gpu_calls_it():
    done = subprocess.run(["make", "-n", "gpu"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tests/bench/gpu" in done.stdout
    assert "pip" not in done.stdout
