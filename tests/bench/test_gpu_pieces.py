"""Pieces of `make gpu` by themselves, with fakes where no CPU has them: targets, samples, runs, stand-ins, tables."""

from __future__ import annotations

import importlib.util
import sys
import time
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import model_speed
import numpy as np
import pytest
import tables
import torch
import zarr
from beside import ROOT
from gpu import run, samples, targets, training
from gpu.parts import NotHereError, Row, Setting
from safetensors.torch import load_file, save_file

from difffusr.kernels.weights import shipped
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.weights.training import FusionSettings, SuperResolutionSettings, load_settings
from difffusr.pipeline.weights.training.packing import _plain

GPU = ROOT / "tests" / "bench" / "gpu"


# what is aimed at


def speed_row(**changes: Any) -> Row:
    return {
        "preset": "reference", "side": 144, "execution": "fused", "precision": "bfloat16", "chips_per_s": 20.0,
        "share_of_peak": 0.31, "km2_per_s": 28.8, "times_eager_float32": 19.0,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("found", "met"),
    [
        ({"speed": [speed_row()]}, [True, True, True]),
        ({"speed": [speed_row(chips_per_s=17.9), speed_row(chips_per_s=18.0)]}, [True, True, True]),
        ({"speed": [speed_row(chips_per_s=9.7, share_of_peak=0.16, times_eager_float32=9.5)]}, [False, False, False]),
        ({"speed": [speed_row(execution="eager"), speed_row(precision="float32"), {"what": "x", "note": "full"}]}, []),
        ({"speed": [speed_row(preset="fast", side=192, km2_per_s=61.0)]}, [True]),
        ({"speed": [speed_row(preset="fast", side=192, km2_per_s=59.0)]}, [False]),
        ({"run": [{"gpu": True, "first_chip_s": 14.0}, {"gpu": False, "first_chip_s": 3.0}]}, [True]),
        ({"run": [{"gpu": True, "first_chip_s": 57.0}]}, [False]),
        ({}, []),
    ],
)
def test_targets_are_met_or_not(found, met):
    assert [row["met"] for row in targets.targets(found)] == met


def test_the_area_of_a_chip_is_what_the_grid_says():
    grid = RunConfig.model_fields["grid"].default_factory()
    assert grid.overlap_px == model_speed.OVERLAP_PX
    assert [round(model_speed.square_km(side), 2) for side in (144, 192, 24, 12)] == [1.44, 2.82, 0, 0]


# where time goes


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("_convolve", "fused kernels"),
        ("_combine", "fused kernels"),
        ("_depthwise", "fused kernels"),
        ("_normalise", "fused kernels"),
        ("_affine", "fused kernels"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolutions and matrix products"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "convolutions and matrix products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm>", "convolutions and matrix products"),
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>", "copies"),
        ("void cudnn::ops::convertTensor_kernel<float>", "copies"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>", "other"),
    ],
)
def test_kernels_are_of_a_kind(kernel, kind):
    assert model_speed.kind_of(kernel) == kind


def test_what_no_kernel_takes_is_waiting():
    spent = {"_convolve": (0.2, 4), "_combine": (0.1, 2), "gemm": (0.3, 1)}
    rows = model_speed.by_kind(spent, 1.0, 10)
    assert [(row["what"], round(row["share"], 3), row["launches"]) for row in rows] == [
        ("waiting", 0.4, 0),
        ("fused kernels", 0.3, 6),
        ("convolutions and matrix products", 0.3, 1),
    ] or rows[1]["share"] == pytest.approx(rows[2]["share"])
    assert rows[0]["ms_per_chip"] == pytest.approx(40)
    assert model_speed.by_kind(spent, 0.5, 1)[-1]["share"] == 0  # kernels side by side


# how busy the GPU is


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("97, 40321\n", (0.97, 40321 * 1.048576)),
        ("0, 3\n", (0.0, 3 * 1.048576)),
        ("\n100, 81559\n3, 12\n", (1.0, 81559 * 1.048576)),  # the first of two
        ("45 %, 1024 MiB", (0.45, 1024 * 1.048576)),
        ("7,8", (0.07, 8 * 1.048576)),
    ],
)
def test_the_commands_line_is_understood(said, expected):
    assert samples.parsed(said) == pytest.approx(expected)


@pytest.mark.parametrize(
    "said", ["", "[N/A], 40321", "[Not Supported], [Not Supported]", "97", "No devices were found", "1, 2, 3"]
)
def test_a_line_without_figures_is_refused(said):
    with pytest.raises(ValueError, match="it says"):
        samples.parsed(said)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("echo '97, 40321'", ""),
        ("echo '[N/A], 5'", "it says '\\[N/A\\], 5'"),
        ("exit 9", "exit status 9"),
        (None, "nvidia-smi"),
    ],
)
def test_without_nvml_the_command_is_asked(tmp_path, monkeypatch, program, why):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if program is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    read, said = samples.reader()
    assert (read is None) is bool(why)
    if why:
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(said)
    else:
        assert read() == pytest.approx((0.97, 40321 * 1.048576))


def test_nvml_is_asked_first(monkeypatch):
    nvml = ModuleType("pynvml")
    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetHandleByIndex = lambda i: f"gpu {i}"
    nvml.nvmlDeviceGetUtilizationRates = lambda handle: type("Rates", (), {"gpu": 42})()
    nvml.nvmlDeviceGetMemoryInfo = lambda handle: type("Memory", (), {"used": 5e9})()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    read, why = samples.reader()
    assert (read(), why) == ((0.42, 5000.0), "")


def test_samples_are_taken_as_long_as_the_block_runs(monkeypatch):
    monkeypatch.setattr(samples, "EVERY_S", 0.001)
    values = iter([(0.0, 100.0), (0.5, 300.0), (1.0, 200.0)])
    with samples.Samples(lambda: next(values, (0.9, 50.0))) as taken:
        while len(taken.taken) < 5:
            time.sleep(0.001)
    count = len(taken.taken)
    time.sleep(0.01)
    assert len(taken.taken) == count
    first, third = taken.taken[0].at, taken.taken[2].at
    assert taken.busy(first, third) == pytest.approx(0.5)
    assert taken.busy(0, first - 1) is None
    assert taken.memory_gb() == pytest.approx(0.3)


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("it says ''"), RuntimeError("NVML: lost")])
def test_samples_that_fail_say_why(error):
    def read() -> tuple[float, float]:
        raise error

    with samples.Samples(read) as taken:
        taken._thread.join(5)
    assert str(error) in taken.why_none
    assert taken.memory_gb() is None


# a whole run


TOLD = {
    "imports_s": 2.0, "at": {"plan last": 103.0, "chips first": 110.0, "chips last": 120.0}, "ended": 130.0, "chips": 9,
    "seconds": {"plan": 0.123456, "chips": 12.0}, "failed": [], "state": "published",
}  # fmt: skip


def test_a_run_is_told_from_the_command_on():
    taken = samples.Samples(lambda: (0.0, 0.0))
    taken.taken = [samples.Sample(at, share, 2000.0) for at, share in ((105, 0.0), (112, 0.8), (118, 0.6), (125, 0.2))]
    row = run.row_of(TOLD, 100.0, taken)
    assert (row["planned_s"], row["first_chip_s"], row["last_chip_s"], row["total_s"]) == (3, 10, 20, 30)
    assert row["busy_between_chips"] == pytest.approx(0.7)
    assert row["busy_in_all"] == pytest.approx(0.4)
    assert row["gpu_memory_gb"] == 2
    assert row["stages_s"] == {"plan": 0.12, "chips": 12.0}
    assert "note" not in row


def test_a_run_without_samples_says_so():
    taken = samples.Samples(lambda: (0.0, 0.0))
    taken.why_none = "neither pynvml nor nvidia-smi"
    assert run.row_of(TOLD, 100.0, taken)["note"] == "neither pynvml nor nvidia-smi"
    assert run.row_of(TOLD, 100.0, None)["gpu"] is False


def cube_of(path: Path, values: np.ndarray) -> Path:
    root = zarr.open_group(str(path), mode="w")
    root.create_array("32632/0/reflectance", data=values)
    return path


@pytest.mark.parametrize(
    ("change", "most", "expected"),
    [
        (lambda x: x, 2, {"difference_max": 0, "ok": True, "pixels_apart": 0}),
        (lambda x: put(x, (0, 3, 1, 1), 1002), 2, {"difference_max": 2, "ok": True}),
        (lambda x: put(x, (0, 3, 1, 1), 1003), 2, {"difference_max": 3, "ok": False}),
        (lambda x: put(x, (0, 11, 4, 4), 700), None, {"difference_max": 300, "ok": True}),
        (lambda x: put(x, (0, 0, 0, 0), 0), 2, {"difference_max": 0, "ok": False, "pixels_apart": 1}),
        (lambda x: put(x, (0, 0, 0, 0), 0), None, {"ok": False, "pixels_apart": 1}),
    ],
)
def test_cubes_are_compared_band_by_band(tmp_path, change, most, expected):
    values = np.full((1, 12, 5, 5), 1000, np.uint16)
    values[0, :, 2, 2] = 0  # nothing was measured there
    one, other = cube_of(tmp_path / "one.zarr", change(values.copy())), cube_of(tmp_path / "other.zarr", values)
    row = run.compared(one, other, most)
    assert expected.items() <= row.items()
    assert len(row["by_band"]) == 12
    assert max(row["by_band"]) == row["difference_max"]


def put(x: np.ndarray, where: tuple[int, ...], value: int) -> np.ndarray:
    x[where] = value
    return x


def test_cubes_without_pixels_are_not_equal(tmp_path):
    empty = cube_of(tmp_path / "one.zarr", np.zeros((1, 12, 5, 5), np.uint16))
    with pytest.raises(RuntimeError, match="holds no pixel"):
        run.compared(empty, empty, 2)


@pytest.mark.parametrize(("precision", "gpus"), [("float32", 1), ("bfloat16", 1), ("float32", 0)])
def test_a_run_is_configured_for_one_actor_on_the_gpu(tmp_path, precision, gpus):
    world = type("World", (), {"bbox": (8.0, 47.0, 8.04, 47.02), "period": ("2023-06-01", "2023-06-30")})()
    world.catalog = tmp_path / "catalog.json"
    config = RunConfig.model_validate(run.config_of(world, tmp_path, precision, gpus))
    assert (config.compute.gpus_per_actor, config.compute.precision, config.compute.batch) == (gpus, precision, "auto")
    assert config.area.bbox == pytest.approx((8.005, 47.0025, 8.035, 47.0175))
    if gpus:
        assert config.compute.actors_max == 1


# what stands for what is not installed


def stand_in(name: str) -> ModuleType:
    """A module of the stand-ins under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"stand_in_{name}", GPU / "stand_ins" / name / "__init__.py")
    if not (GPU / "stand_ins" / name).is_dir():
        spec = importlib.util.spec_from_file_location(f"stand_in_{name}", GPU / "stand_ins" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("stage", ["stage1", "fusion"])
def test_shipped_weights_are_read_the_same(stage):
    path = shipped("small", stage)
    with stand_in("safetensors").safe_open(path, "pt", device="cpu") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert file.metadata()["config"]
    expected = load_file(path)
    assert set(read) == set(expected)
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in expected.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_any_kind_are_read(tmp_path, dtype):
    tensors = {
        "a": torch.tensor([[1, 0, 3]]).to(dtype),
        "none": torch.empty(0, 3, dtype=dtype),
        "s": torch.ones((), dtype=dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with stand_in("safetensors").safe_open(tmp_path / "x.safetensors", "pt") as file:
        for name, value in tensors.items():
            got = file.get_tensor(name)
            assert torch.equal(got, value)
            assert got.shape == value.shape
        assert file.metadata() is None


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"\x08\0\0\0\0\0\0\0{", b"\x02\0\0\0\0\0\0\0[]x", b"PK\x03\x04 no such"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    module = stand_in("safetensors")
    with pytest.raises(module.SafetensorError):
        module.safe_open(tmp_path / "x", "pt")


def test_a_file_cut_short_is_refused(tmp_path):
    save_file({"a": torch.ones(4)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-3])
    module = stand_in("safetensors")
    with module.safe_open(tmp_path / "x", "pt") as file, pytest.raises(module.SafetensorError, match="not all there"):
        file.get_tensor("a")


@pytest.mark.parametrize(
    "package",
    [path.parent for path in sorted((ROOT / "kernels").rglob("__init__.pyi"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_names_of_a_room_are_found_the_same(package):
    name = ".".join(("difffusr", *package.relative_to(ROOT).parts))
    room = importlib.import_module(name)
    get, names, everything = stand_in("lazy_loader").attach_stub(name, str(package / "__init__.py"))
    assert set(everything) == set(names()) == set(room.__all__)
    assert all(get(one) is getattr(room, one) for one in everything)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        get("nothing")


# trainings and tables


@pytest.mark.parametrize(
    ("ours", "kind", "file"),
    [
        (training.STAGE1, SuperResolutionSettings, "train-sr-base.yaml"),
        (training.FUSION, FusionSettings, "train-fusion-base.yaml"),
    ],
)
def test_trainings_are_those_of_base(ours, kind, file, tmp_path):
    example = Path(str(resources.files("difffusr.pipeline.config.examples"))) / file
    settings = load_settings(kind, example, {"root": tmp_path})
    for name, value in ours.items():
        assert getattr(settings, name) == value, name
    unused = {"checkpoint_every", "validate_every", "samples_every", "validation_images", "validation_px"}
    assert set(ours) == set(_plain(settings)) - unused


def test_a_training_without_what_it_draws_with_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "NEEDED", ("matplotlib", "no_such_package"))
    with pytest.raises(NotHereError, match="not installed: no_such_package"):
        next(training.rows(Setting("cpu", True, tmp_path)))


def test_tables_say_the_same_with_rich_and_without(capsys, monkeypatch):
    rows = [{"what": "one", "chips_per_s": 12.3456, "ok": True}, {"what": "two", "large": 1234.5, "by": {"a": 0.5}}]
    tables.print_table("A title", rows)
    rich = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    tables.print_table("A title", rows)
    plain = capsys.readouterr().out
    assert rich.split() == plain.split()
    assert "12.3" in plain
    assert "yes" in plain
    assert "1234" in plain
    assert "a 0.5" in plain
