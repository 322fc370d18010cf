"""A machine with less memory than the tasks that write shards ask for writes them nevertheless."""

from __future__ import annotations

import json

import pytest
from fresh_python import run_python

from difffusr.pipeline.assemble.blend import blend_memory
from difffusr.pipeline.assemble.halving import halve_memory
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.geo.grid import grid_of

#: Notes what every task asks Ray for, while a whole run goes through a Ray of so many bytes.
RUN = """
import json, logging, sys
from pathlib import Path
import ray
from ray.remote_function import RemoteFunction
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.run.execution import execute

class Silent:
    def start(self, stage, total, done=0): ...
    def advance(self, stage): ...

asked, options = {{}}, RemoteFunction.options
def noted(self, **given):
    asked[self._function_name.rsplit(".", 1)[-1]] = given.get("memory")
    return options(self, **given)
RemoteFunction.options = noted
quiet = dict(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ray.init("local", num_cpus=2, _memory={memory}, **quiet)
result = execute(load_config(Path({path!r})), Silent())
print(json.dumps([result.exit_code, asked.get("write_shard"), asked.get("write_overview")]))
"""


@pytest.mark.slow  # a Ray of its own
def test_tasks_that_need_more_memory_than_there_is_ask_for_all_of_it(configure):
    path = configure(model={"sampler": "draft", "sampler_steps": None})
    grid = grid_of(load_config(path))
    memory = min(blend_memory(grid, with_std=False), halve_memory(grid, with_std=False)) // 2
    told = run_python(RUN.format(memory=memory, path=str(path))).splitlines()[-1]
    assert json.loads(told) == [0, memory, memory]
