"""The image: what it is built of is pinned, what runs is small and not root, and its steps work one after another."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from beside import ROOT
from dockerfile import Builder, context, entrypoint, inside, stages

from difffusr.pipeline.scenes.synthetic.world import write_demo_world

FILE = ROOT / "infra" / "Dockerfile"
VARIANTS = ("cpu", "cuda")


def the_way_to(last: str, variant: str) -> list[str]:
    """The stages that one is made from, itself last."""
    every = stages(FILE.read_text(), {"VARIANT": variant})
    way = [last]
    while every[way[0]].base in every:
        way.insert(0, every[way[0]].base)
    return way


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_stage_stands_on_a_pinned_image_or_an_earlier_stage(variant):
    every = stages(FILE.read_text(), {"VARIANT": variant})
    known: list[str] = []
    for name, stage in every.items():
        assert stage.base in known or re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", stage.base), stage.base
        known.append(name)
    assert list(every)[-1] == "difffusr"
    assert the_way_to("packages", variant) == [f"torch-{variant}", "packages"]
    assert the_way_to("difffusr", variant) == [f"base-{variant}", "difffusr"]


def test_a_variant_that_there_is_not_has_nothing_to_stand_on():
    every = stages(FILE.read_text(), {"VARIANT": "tpu"})
    assert every["packages"].base not in every


def test_whatever_pip_installs_is_constrained_and_leaves_no_cache():
    for stage in stages(FILE.read_text()).values():
        for step in stage.all("RUN"):
            for call in re.findall(r"pip (?:install|wheel) [^&]*", step.rest):
                assert "--no-cache-dir" in call
                pinned = "--constraint /build/constraints.txt --constraint /build/locked.txt" in call
                assert pinned or "setuptools==" in call or "--no-deps" in call, call


def test_the_versions_that_are_locked_are_those_that_the_project_was_tested_with():
    def versions(path: Path) -> dict[str, str]:
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        return {name.lower(): version for name, _, version in (line.partition("==") for line in lines if line)}

    tested, locked = versions(ROOT / "constraints.txt"), versions(ROOT / "infra" / "locked.txt")
    assert all(locked.values())
    shared = tested.keys() & locked.keys()
    assert {"ray", "zarr", "numpy", "rasterio", "gcsfs"} <= shared
    assert {name: tested[name] for name in shared} == {name: locked[name] for name in shared}


def test_what_runs_has_neither_the_sources_nor_what_built_them_and_is_not_root():
    last = stages(FILE.read_text())["difffusr"]
    assert [step.rest for step in last.all("COPY")] == ["--from=packages /opt/difffusr /opt/difffusr"]
    assert not any("pip" in step.rest or "apt" in step.rest for step in last.all("RUN"))
    assert [step.rest for step in last.all("USER")] == ["1000:1000"]
    assert entrypoint(last) == ["difffusr"]
    assert [step.name for step in last.instructions][-3:] == ["USER", "ENTRYPOINT", "CMD"]


def test_the_image_says_what_it_is():
    (labels,) = stages(FILE.read_text())["difffusr"].all("LABEL")
    given = dict(word.split("=", 1) for word in shlex.split(labels.rest))
    project = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{given["org.opencontainers.image.version"]}"\n' in project
    assert f'\nlicense = "{given["org.opencontainers.image.licenses"]}"\n' in project


def test_the_builder_is_sent_the_package_and_nothing_else():
    sent = {str(path.relative_to(ROOT)) for path in context(ROOT)}
    assert {"infra/locked.txt", "pipeline/commands/cli.py", "pipeline/plan/pictures/page.html"} <= sent
    assert "kernels/weights/small-stage1.safetensors" in sent
    assert {name.partition("/")[0] for name in sent} == {
        *("pyproject.toml", "README.md", "LICENSE", "constraints.txt"),
        *("infra", "kernels", "pipeline"),
    }
    assert not [name for name in sent if name.endswith(".pyc") or name.startswith(("infra/D", "infra/k"))]


# ---- the steps, really run ------------------------------------------------------------------------------------------

needs_chroot = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("debootstrap") is None,
    reason="no root, or no debootstrap on PATH (Debian: apt-get install debootstrap)",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Stands in for the base image: the same Debian, with Debian's own Python 3.11."""
    folder = tmp_path_factory.mktemp("base") / "root"
    include = "python3,python3-venv,ca-certificates"
    made = subprocess.run(
        [
            "debootstrap",
            "--variant=minbase",
            f"--include={include}",
            "bookworm",
            str(folder),
            "http://deb.debian.org/debian",
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    if made.returncode:
        pytest.skip(f"debootstrap could not make a Debian: {(made.stderr or made.stdout).strip().splitlines()[-1:]}")
    return folder


def packages_in(folder: Path) -> dict[str, str]:
    """Installed distributions and their versions."""
    (site,) = inside(folder, "/opt/difffusr/lib").glob("python3*/site-packages")
    found = importlib.metadata.distributions(path=[str(site)])
    return {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in found}


@pytest.mark.slow
@needs_chroot
def test_the_steps_of_the_image_work_one_after_another(base, tmp_path, capsys):
    """Not shown: the base image itself (Debian's Python stands in for it) and PyPI's torch with CUDA (gigabytes)."""
    builder = Builder(ROOT, FILE, base, tmp_path / "stages", {"VARIANT": "cpu"})
    last = builder.built("difffusr")

    installed = packages_in(last)
    locked = dict(
        line.split("==") for line in (ROOT / "infra" / "locked.txt").read_text().splitlines() if "==" in line[:60]
    )
    expected = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked.items() if name[0] != "#"}
    assert installed.pop("torch").startswith("2.13.0")
    assert installed.pop("difffusr") == "0.1.0"
    assert installed == expected

    world = write_demo_world(inside(last, "/home/difffusr/world"), seed=11, size_m=(1200, 1200))
    config = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": "2023-06",
        "source": {"static_catalog": "world/archive/catalog.json"},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "model": {"sampler": "draft"},
        "store": {"url": "cube.zarr"},
    }
    inside(last, "/home/difffusr/run.yaml").write_text(yaml.safe_dump(config))

    def run(command: str) -> str:
        return builder.run("difffusr", command, user="1000:1000")

    assert run("id -u").strip() == "1000"
    assert run("ray --version").split()[-1] == expected["ray"]
    assert "Usage: difffusr" in run(shlex.join([*entrypoint(stages(FILE.read_text())["difffusr"]), "--help"]))
    assert "9 (about" in run("difffusr plan run.yaml")
    run("python -c 'import ray.autoscaler._private.kuberay.run_autoscaler'")  # the head's second container
    assert "publication 1" in run("RAY_TMPDIR=/tmp difffusr run run.yaml")
    assert run("for tool in gcc make pip; do command -v $tool || true; done") == ""

    builder.built("base-cuda")
    assert "12.2" in builder.run("base-cuda", "gcc --version")
    with capsys.disabled():
        print("", *builder.said, sep="\n  ")
