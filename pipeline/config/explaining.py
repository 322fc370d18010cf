"""What is wrong with a configuration, in one line: key, value found, what is allowed."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.config.values import Section
from difffusr.pipeline.ground.urls import shown_url

#: More wrong keys than these are counted.
_MOST_CLAUSES = 8


def explain(error: ValidationError) -> str:
    """All errors of a validation in one line, one clause a key."""
    clauses: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        path, clause = _clause(detail)
        clauses.setdefault(path, clause)
    if "store.url" in clauses:  # the default of the other is derived from it
        clauses.pop("store.staging", None)
    clauses = {path: clauses[path] for path in clauses if not any(other.startswith(f"{path}.") for other in clauses)}
    said = [f"{path}: {clause}" for path, clause in clauses.items()]
    more = [f"and {len(said) - _MOST_CLAUSES} more"] if len(said) > _MOST_CLAUSES else []
    return "; ".join([*said[:_MOST_CLAUSES], *more])


def _clause(detail: ErrorDetails) -> tuple[str, str]:
    """The dotted key of an error, and what is wrong with it."""
    kind, context = detail["type"], detail.get("ctx", {})
    path, expected, siblings = _locate(detail["loc"])
    name = ".".join(step if step.isprintable() else repr(step) for step in path)
    if kind in ("extra_forbidden", "invalid_key"):
        near = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.5)
        hint = f", did you mean '{near[0]}'?" if near else ""
        return name, f"unknown key{hint} (allowed: {', '.join(siblings)})"
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return name.rpartition(".")[0], f"found {shown_value(detail['input'])}, expected {expected}"
    if kind == "missing":
        return name, f"missing, expected {expected}"
    if kind == "choice":
        return name, detail["msg"]
    if kind == "secret":
        return name, f"found credentials, expected {detail['msg']}"
    if kind == "rule":
        key = f"{name}.{context['key']}".lstrip(".")
        return key, f"found {shown_value(context['found'])}, expected {context['expected']}"
    found = "a value not shown" if "storage_options" in path else shown_value(detail["input"])
    return name, f"found {found}, expected {expected}"


def shown_value(value: object) -> str:
    if isinstance(value, (Mapping, Section)):
        return "a section"
    if isinstance(value, dt.date):
        return f"'{value}'"
    if isinstance(value, str):
        value = shown_url(value)
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _locate(location: tuple[int | str, ...]) -> tuple[list[str], str, list[str]]:
    """The keys of an error's location without pydantic's own steps, what that key allows, and the keys beside it."""
    model: type[BaseModel] | None = RunConfig
    path: list[str] = []
    expected, siblings = "", []
    for step in location:
        if model is None:
            if isinstance(step, int) or path[-1] == "storage_options":
                path.append(str(step))
            continue
        path.append(str(step))
        siblings = list(model.model_fields)
        field = model.model_fields.get(str(step))
        if field is None:
            break
        expected = field.description or ""
        inner = field.annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if len(path) > 1 and path[-1].isdigit() and path[-2] == "tiles":
        expected = "an MGRS tile id such as 48QUE"
    return path, expected, siblings
