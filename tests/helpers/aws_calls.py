"""Which calls to AWS some Python source can make: read from the source with boto3's own models, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import boto3
from botocore import xform_name
from botocore.loaders import Loader
from botocore.waiter import WaiterModel

#: What lists, dicts, strings and sets can do says nothing of AWS, though boto3 has actions of the same name.
_BUILT_IN = {name for kind in (dict, list, str, set) for name in dir(kind)}


@lru_cache
def _loader() -> Loader:
    return Loader(extra_search_paths=[str(Path(boto3.__file__).parent / "data")])


@lru_cache
def operations(service: str) -> frozenset[str]:
    """Names of all calls of a service, such as DescribeInstances."""
    return frozenset(_loader().load_service_model(service, "service-2")["operations"])


@lru_cache
def _of_clients(service: str) -> dict[str, str]:
    """Calls by what a client's method for them is called."""
    return {xform_name(name): name for name in operations(service)}


@lru_cache
def _of_resources(service: str) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Calls by the names of actions (`terminate`), of any resource that has one, and of collections that `filter` and
    `all` list. Both are empty for a service of which boto3 has clients alone."""
    actions: dict[str, set[str]] = {}
    lists: dict[str, str] = {}
    if service not in _loader().list_available_services("resources-1"):
        return actions, lists
    model = _loader().load_service_model(service, "resources-1")
    for thing in [model["service"], *model["resources"].values()]:
        for name, one in thing.get("actions", {}).items():
            if "request" in one:
                actions.setdefault(xform_name(name), set()).add(one["request"]["operation"])
        for name, one in thing.get("waiters", {}).items():
            asked = _waiters(service)[xform_name(one["waiterName"])]
            actions.setdefault(f"wait_until_{xform_name(name)}", set()).add(asked)
        for name, one in thing.get("hasMany", {}).items():
            if "request" in one:
                lists[xform_name(name)] = one["request"]["operation"]
    return actions, lists


@lru_cache
def _of_loading(service: str) -> dict[str, str]:
    """Calls that fetch a resource when it is first looked at, by the resource's name, such as Role."""
    if service not in _loader().list_available_services("resources-1"):
        return {}
    resources = _loader().load_service_model(service, "resources-1")["resources"]
    return {name: one["load"]["request"]["operation"] for name, one in resources.items() if "load" in one}


@lru_cache
def _waiters(service: str) -> dict[str, str]:
    if service not in _loader().list_available_services("waiters-2"):
        return {}
    model = WaiterModel(_loader().load_service_model(service, "waiters-2"))
    return {xform_name(name): model.get_waiter(name).operation for name in model.waiter_names}


def calls(source: str, services: tuple[str, ...]) -> set[str]:
    """Calls that a source can make, as IAM names their actions: ``{"ec2:DescribeInstances", …}``.

    Methods of clients count by their name wherever they are named, called or not; actions of resources where they are
    called; `X.filter(…)` and `X.all()` of the collections X; `get_waiter("x")`; and `iam.Role(…)`, which is loaded when
    it is looked at.
    """
    return {f"{service}:{name}" for node in ast.walk(ast.parse(source)) for service, name in _of(node, services)}


def _of(node: ast.AST, services: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    named = node.func if isinstance(node, ast.Call) else node
    if not isinstance(named, ast.Attribute):
        return
    for service in services:
        if found := _of_clients(service).get(named.attr):
            yield service, found
        if not isinstance(node, ast.Call):
            continue
        actions, lists = _of_resources(service)
        inner = named.value
        if named.attr in ("filter", "all") and isinstance(inner, ast.Attribute) and inner.attr in lists:
            yield service, lists[inner.attr]
        elif named.attr in actions and named.attr not in _BUILT_IN:
            yield from ((service, name) for name in actions[named.attr])
        elif named.attr in _of_loading(service) and isinstance(inner, ast.Name) and inner.id == service:
            yield service, _of_loading(service)[named.attr]
        elif named.attr == "get_waiter" and isinstance(node.args[0], ast.Constant):
            yield from ((service, asked) for name, asked in _waiters(service).items() if name == node.args[0].value)
