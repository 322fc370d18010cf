"""What Ray's launcher is given is what it, and the cloud behind it, understands: nothing is installed, no GPU idles."""

from __future__ import annotations

import copy
import inspect
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from beside import ROOT

FILES = {path.stem: path for path in sorted((ROOT / "infra" / "launcher").glob("*.yaml"))}


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the launcher's defaults, checked as `ray up` checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    full: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(full)
    return full


@pytest.fixture(params=sorted(FILES))
def config(request) -> dict[str, Any]:
    return yaml.safe_load(FILES[request.param].read_text())


def test_there_is_one_for_each_cloud():
    assert sorted(FILES) == ["aws", "gcp"]


def test_the_launcher_takes_it(config):
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    full = prepared(config)
    assert full["head_node_type"] == "head"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("max_worker",), 3, "'max_worker' was unexpected"),
        (("max_workers",), "12", "'12' is not of type 'integer'"),
        (("available_node_types", "gpu", "min_worker"), 0, "'min_worker' was unexpected"),
        (("available_node_types", "gpu", "resources", "GPU"), -1, "-1 is less than the minimum of 0"),
        (("docker", "image_name"), "difffusr", "'image_name' was unexpected"),
    ],
)
def test_a_broken_one_is_refused(config, place, value, said):
    *way, last = place
    inner = config
    for step in way:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError, match=re.escape(said)):
        prepared(config)


def test_without_a_provider_or_a_node_s_resources_it_is_refused(config):
    lacking = copy.deepcopy(config)
    del lacking["available_node_types"]["gpu"]["resources"]
    with pytest.raises(jsonschema.ValidationError, match="'resources' is a required property"):
        prepared(lacking)


def test_the_head_has_no_gpu_and_does_no_work(config):
    head = config["available_node_types"]["head"]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "guestAccelerators" not in head["node_config"]
    assert any("--num-cpus=0 --num-gpus=0" in command for command in config["head_start_ray_commands"])


def test_workers_are_spot_machines_and_none_is_kept(config):
    for name, node in config["available_node_types"].items():
        spot = "spot" in json.dumps(node["node_config"]).lower()
        assert spot == (name != "head"), name
    full = prepared(config)
    assert {name: node["min_workers"] for name, node in full["available_node_types"].items()} == {
        "head": 0,
        "gpu": 0,
        "cpu": 0,
    }


def test_nothing_is_installed_on_a_node(config):
    full = prepared(config)
    for commands in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert full[commands] == [], commands
    assert not any("pip" in command for command in full["initialization_commands"])


def test_nodes_ask_for_the_token_and_the_dashboard_is_for_the_head_alone(config):
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_the_run_file_that_goes_along_is_there_and_fits(config):
    from difffusr.pipeline.config.loading import load_config

    compute = load_config(ROOT / config["file_mounts"]["~/run.yaml"]).compute
    assert compute.actors_max == config["available_node_types"]["gpu"]["max_workers"]
    assert compute.wait_minutes > 0


def test_ec2_knows_what_is_asked_of_it():
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    shape = model.operation_model("RunInstances").input_shape
    types = yaml.safe_load(FILES["aws"].read_text())["available_node_types"]
    required = {"MinCount": 1, "MaxCount": 1}
    for node in types.values():
        asked = {**required, **node["node_config"]}
        assert not ParamValidator().validate(asked, shape).has_errors()
        assert set(asked) <= set(shape.members)
        market = asked.get("InstanceMarketOptions", {}).get("MarketType", "spot")
        assert market in shape.members["InstanceMarketOptions"].members["MarketType"].enum
    wrong = {**required, "InstanceMarketOptions": {"MarketTyp": "spot"}}
    assert ParamValidator().validate(wrong, shape).has_errors()


def unknown(thing: Any, schema: dict[str, Any], every: dict[str, Any], place: str = "") -> list[str]:
    """Names in a request to a Google API that its description does not have."""
    schema = every[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(thing, dict):
        names = schema.get("properties", {})
        found = [f"{place}.{name}" for name in thing if name not in names]
        return found + [u for n in thing if n in names for u in unknown(thing[n], names[n], every, f"{place}.{n}")]
    if isinstance(thing, list):
        if schema.get("type") != "array":
            return [f"{place} is a list"]
        return [u for value in thing for u in unknown(value, schema["items"], every, f"{place}[]")]
    return [f"{place}: {thing}"] if "enum" in schema and thing not in schema["enum"] else []


def test_compute_engine_knows_what_is_asked_of_it():
    documents = pytest.importorskip("googleapiclient.discovery_cache", reason="needs difffusr[launcher]")
    every = json.loads(Path(documents.__file__).parent.joinpath("documents", "compute.v1.json").read_text())["schemas"]
    types = yaml.safe_load(FILES["gcp"].read_text())["available_node_types"]
    for node in types.values():
        assert unknown(node["node_config"], every["Instance"], every) == []
    assert unknown({"scheduling": {"provisioningModel": "SPOTTY"}}, every["Instance"], every)
    assert unknown({"schedulin": {}}, every["Instance"], every)


def accounts() -> dict[str, set[str]]:
    """On Compute Engine: the service accounts of the head and of the workers."""
    found: dict[str, set[str]] = {}
    for name, node in yaml.safe_load(FILES["gcp"].read_text())["available_node_types"].items():
        (account,) = node["node_config"]["serviceAccounts"]
        found.setdefault("head" if name == "head" else "worker", set()).add(account["email"])
    return found


def test_on_compute_engine_workers_are_not_what_the_head_is():
    found = accounts()
    project = yaml.safe_load(FILES["gcp"].read_text())["provider"]["project_id"]
    assert found == {part: {f"difffusr-{part}@{project}.iam.gserviceaccount.com"} for part in ("head", "worker")}


def test_the_head_is_who_the_file_says_although_ray_makes_an_account_of_its_own():
    """Ray's own may end every machine of the project and pull no image: the file's comes after it."""
    from ray.autoscaler._private import commands
    from ray.autoscaler._private.gcp import config

    roles = config.DEFAULT_SERVICE_ACCOUNT_ROLES
    assert "roles/compute.admin" in roles
    assert not any("artifactregistry" in role for role in roles)
    source = inspect.getsource(commands.get_or_create_head_node)
    start = source.index('copy.deepcopy(config.get("head_node", {}))')
    assert source.index('head_node_config.update(head_config["node_config"])') > start
