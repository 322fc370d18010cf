"""Calibration: every part of a run measured with the configuration's own model, grid, compute, source and store."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from difffusr.pipeline.chips import device_facts
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import KEEP_FREED, cluster
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.run.cost.calibration import Calibration, StartUp, conditions_of
from difffusr.pipeline.run.cost.estimates import cluster_of
from difffusr.pipeline.run.cost.measure_model import measure_model
from difffusr.pipeline.run.cost.measure_planning import measure_planning
from difffusr.pipeline.run.cost.measure_reading import measure_reading
from difffusr.pipeline.run.cost.measure_shards import measure_shards, measure_staging
from difffusr.pipeline.run.cost.sample import Sample, generated_plan
from difffusr.pipeline.storage import Storage, staging_of, store_failures
from difffusr.pipeline.watch import Progress


def calibrate(
    config: RunConfig, batches: Sequence[int] = (), progress: Progress | None = None, plan: Plan | None = None
) -> Calibration:
    """Measure how long the parts of a run take on this machine, each done as a run does it.

    The model runs in as many actors as the run would have; shards are blended and written with all cores. Everything
    is written below the staging folder and deleted afterwards. Time that other processes kept these from computing is
    subtracted where the system says it (Linux); their other effects remain, so measure on an idle machine. What the
    engine (Ray Data) adds to a chip is lost in the noise, and not measured.

    Args:
        batches: sizes to measure the model with, besides `compute.batch`, or one a core where that is 'auto'.
        plan: of this configuration; chips of it are read from its own scenes. Without it, from a generated scene.

    Raises:
        DifffusrError: source, model, store or cluster cannot be used.
    """
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    sizes = sorted({config.compute.batch_on_cores, *batches})
    progress = progress or _Silent()
    progress.start("calibrate", 5 + len(sizes))
    with _scratch(config) as (scratch, folder):
        sample = Sample.of(scratch, plan or generated_plan(scratch, folder))
        progress.advance("calibrate")
        begun = time.perf_counter()
        with cluster(scratch, KEEP_FREED):
            ray_seconds = time.perf_counter() - begun
            machine = cluster_of(scratch)
            planning = measure_planning(scratch, sample)  # first: what it leaves behind, reading finds
            progress.advance("calibrate")
            reading = measure_reading(scratch, sample)
            progress.advance("calibrate")
            model = measure_model(scratch, machine, sample, sizes, progress)
            staged, staging = measure_staging(scratch, model.chips)
            progress.advance("calibrate")
            shard, overview, publish = measure_shards(scratch, machine, sample, staged)
            progress.advance("calibrate")
    gpu = machine.gpus > 0
    return Calibration(
        version=3,
        measured=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=f"{machine.cpus} cores" + (f", {machine.gpus:g} × {device_facts()[0]}" if gpu else ""),
        gpu=gpu,
        actors=machine.actors,
        load=load,
        source="own" if plan else "generated",
        conditions=conditions_of(config),
        model=model.seconds,
        planning=planning,
        start_up=StartUp(ray=ray_seconds, actors=model.start),
        read=reading,
        stage=staging,
        shard=shard,
        overview=overview,
        publish=publish,
    )


@contextmanager
def _scratch(config: RunConfig) -> Iterator[tuple[RunConfig, Path]]:
    """The configuration with cube and staging in a scratch folder, and a temporary folder on this machine; both are
    deleted afterwards."""
    place = staging_of(config).child(f"calibration-{uuid4().hex}")
    store = config.store.model_copy(update={"url": f"{place.url}/cube.zarr", "staging": f"{place.url}/staging"})
    samples = min(config.model.uncertainty_samples, 2)
    model = config.model.model_copy(update={"uncertainty_samples": samples})
    try:
        with tempfile.TemporaryDirectory(prefix="difffusr-calibration-") as folder:
            yield config.model_copy(update={"store": store, "model": model}), Path(folder)
    finally:
        _delete(place)


def _delete(place: Storage) -> None:
    fs, path = place.filesystem()
    try:
        fs.invalidate_cache()
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        return
    except store_failures() as error:
        raise StoreError(f"{place.url}: cannot be deleted ({first_line(error)}); delete it by hand") from None


class _Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...
