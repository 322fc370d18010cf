"""Compiled kernels go from the actor that made them to all others, and nothing that is wrong with them does harm."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from difffusr.pipeline.chips.compiled import kernels_of, shared_kernels
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage

GPU = "NVIDIA H100 80GB HBM3"

#: Compiles a kernel for a GPU that is not there, within `shared_kernels`; prints the folder's files before and after.
COMPILE = """
import json, os, sys
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from difffusr.kernels.networks.fused import triton_forms
from difffusr.pipeline.chips.compiled import shared_kernels
from difffusr.pipeline.storage.objects import Storage

kernel = triton_forms._normalise
constants = {"SWISH": True, "FAR": False, "BR": 32, "BC": 64}
pointers = {"out": "*bf16", "x1": "*bf16", "x2": "*bf16", "affine": "*fp32"}
signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
def files():
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*") if path.is_file())
with shared_kernels(Storage(sys.argv[1]), "an H100"):
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    before = files()
    triton.compile(ASTSource(kernel, signature, constexprs=values), target=GPUTarget("cuda", 90, 32))
    print(json.dumps([before, files()]))
"""


@pytest.fixture(autouse=True)
def no_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    yield
    os.environ.pop("TRITON_CACHE_DIR", None)


def compiled(folder: Path, content: bytes = b"machine code") -> None:
    """What Triton leaves of a kernel."""
    (folder / "KEY").mkdir(exist_ok=True)
    (folder / "KEY" / "_combine.cubin").write_bytes(content)
    listed = {"child_paths": {"_combine.cubin": str(folder / "KEY" / "_combine.cubin")}}
    (folder / "KEY" / "__grp___combine.json").write_text(json.dumps(listed))


def here() -> Path:
    return Path(os.environ["TRITON_CACHE_DIR"])


def as_a_new_process() -> None:
    os.environ.pop("TRITON_CACHE_DIR", None)


@pytest.fixture
def staging(tmp_path) -> Storage:
    return Storage(str(tmp_path / "staging"))


@pytest.fixture
def shared(staging) -> Storage:
    with shared_kernels(staging, GPU):
        compiled(here())
    as_a_new_process()
    return staging


def packages(staging: Storage) -> list[Path]:
    return sorted(Path(staging.url).glob("kernels/*.zip"))


def test_another_actor_finds_what_the_first_has_compiled_in_a_folder_of_its_own(shared):
    with shared_kernels(shared, GPU):
        listed = json.loads((here() / "KEY" / "__grp___combine.json").read_text())["child_paths"]
        assert listed == {"_combine.cubin": str(here() / "KEY" / "_combine.cubin")}
        assert Path(listed["_combine.cubin"]).read_bytes() == b"machine code"
        assert stat.S_IMODE(here().stat().st_mode) == 0o700


def test_one_that_compiles_nothing_writes_nothing(shared):
    (package,) = packages(shared)
    package.touch()
    before = package.stat().st_mtime_ns
    with shared_kernels(shared, GPU):
        pass
    assert package.stat().st_mtime_ns == before


def test_other_gpus_have_their_own(shared):
    with shared_kernels(shared, "NVIDIA L40S"):
        assert not list(here().iterdir())
        compiled(here())
    assert len(packages(shared)) == 2


def test_a_folder_that_the_user_names_is_used_as_it_is(staging, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with shared_kernels(staging, GPU):
        compiled(here())
    assert not packages(staging)
    assert (tmp_path / "KEY").exists()


@pytest.mark.parametrize("damage", [b"", b"PK", b"no package", None])
def test_a_damaged_package_is_said_not_used_and_replaced(shared, caplog, damage):
    (package,) = packages(shared)
    whole = package.read_bytes()
    package.write_bytes(bytes(whole[:60] + b"\xff" + whole[61:]) if damage is None else damage)
    with caplog.at_level("WARNING", "difffusr"), shared_kernels(shared, GPU):
        assert not list(here().glob("*/*"))
        compiled(here())
    assert "is not used" in caplog.text
    as_a_new_process()
    with shared_kernels(shared, GPU):
        assert (here() / "KEY" / "_combine.cubin").read_bytes() == b"machine code"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "KEY/../../outside", "KEY/a/b", "KEY/..", "x"])
def test_nothing_is_unpacked_outside_or_in_other_places_than_tritons(shared, name):
    (package,) = packages(shared)
    with zipfile.ZipFile(package, "w") as made:
        made.writestr(name, b"bad")
        made.writestr("KEY/good", b"good")
    with shared_kernels(shared, GPU):
        assert [path.relative_to(here()).as_posix() for path in here().rglob("*") if path.is_file()] == ["KEY/good"]
        assert not (here().parent / "outside").exists()


def test_a_package_that_would_fill_the_disk_is_refused(shared, caplog, monkeypatch):
    monkeypatch.setattr("difffusr.pipeline.chips.compiled._MOST_BYTES", 1000)
    (package,) = packages(shared)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("KEY/large", bytes(2000))
    package.write_bytes(data.getvalue())
    with caplog.at_level("WARNING", "difffusr"), shared_kernels(shared, GPU):
        assert not list(here().iterdir())
    assert "larger than" in caplog.text


def test_a_store_that_refuses_costs_only_time(monkeypatch, staging, caplog):
    def refuse(*_):
        raise StoreError("bucket: refused")

    for method in ("exists", "read", "write"):
        monkeypatch.setattr(Storage, method, refuse)
    with caplog.at_level("WARNING", "difffusr"), shared_kernels(staging, GPU):
        compiled(here())
    assert caplog.text.count("refused") == 2


def test_what_fails_within_is_not_hidden_and_nothing_is_shared(staging):
    def fail() -> None:
        with shared_kernels(staging, GPU):
            compiled(here())
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fail()
    assert not packages(staging)


@pytest.mark.parametrize(
    ("execution", "on_gpu", "shares"), [("auto", True, 1), ("fused", True, 1), ("eager", True, 0), ("auto", False, 0)]
)
def test_an_actor_shares_them_where_it_has_a_gpu_and_fuses(loaded, monkeypatch, execution, on_gpu, shares):
    monkeypatch.setattr("torch.cuda.is_available", lambda: on_gpu)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: GPU)
    config = loaded(compute={"execution": execution})
    with kernels_of(config):
        if shares:
            compiled(here())
    assert len(packages(Storage(config.store.staging))) == shares


def test_triton_itself_compiles_nothing_that_it_is_given(tmp_path):
    pytest.importorskip("triton")
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    first, second = (
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
        for _ in range(2)
    )
    assert first[0] == []
    assert any(name.endswith(".cubin") for name in first[1])
    assert second[0] == second[1] == first[1]
