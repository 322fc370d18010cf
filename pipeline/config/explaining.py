"""What is wrong with a configuration, in one line: key, value found, what is allowed."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from difffusr.pipeline.ground.urls import shown_url

#: Wrong keys listed in one line; the rest are counted.
_MOST_CLAUSES = 8


class LineOf(Protocol):
    """Where in a file a value stands: its line from 1, None where that is not known."""

    def __call__(self, steps: Sequence[int | str], found: object) -> int | None:
        """The line of the value found by way of these keys and positions."""


def explain(error: ValidationError, kind: type[BaseModel], line_of: LineOf) -> str:
    """All errors of validating a model of this kind in one line, one clause a key, with the line of the value in its
    file.

    The descriptions of the model's fields say what is allowed. Values that may be secrets are not shown.
    """
    clauses: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        name, clause = _clause(kind, detail)
        clauses.setdefault(name, clause + _place(detail, line_of))
    if "store.url" in clauses:  # the default of store.staging is derived from it
        clauses.pop("store.staging", None)
    clauses = {name: clauses[name] for name in clauses if not any(other.startswith(f"{name}.") for other in clauses)}
    said = [f"{name}: {clause}".removeprefix(": ") for name, clause in clauses.items()]
    more = [f"and {len(said) - _MOST_CLAUSES} more"] if len(said) > _MOST_CLAUSES else []
    return "; ".join([*said[:_MOST_CLAUSES], *more])


def _clause(kind: type[BaseModel], detail: ErrorDetails) -> tuple[str, str]:
    """The dotted key of an error, such as data[1].gsd_m, and what is wrong with it."""
    problem, context = detail["type"], detail.get("ctx", {})
    path, expected, siblings = _locate(kind, detail["loc"])
    name = ".".join(step if step.isprintable() else repr(step) for step in path)
    if problem in ("extra_forbidden", "invalid_key"):
        near = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.5)
        hint = f", did you mean '{near[0]}'?" if near else ""
        return name, f"unknown key{hint} (allowed: {', '.join(siblings)})"
    if problem == "missing" and isinstance(detail["loc"][-1], int):
        return name.rpartition(".")[0], f"found {_shown(detail['input'])}, expected {expected}"
    if problem == "missing":
        return name, f"missing, expected {expected}"
    if problem == "reason":
        return name, detail["msg"]
    if problem == "no_such_day":
        return name, f"found {_shown(detail['input'])}, expected {expected}: there is no such day"
    if problem == "secret":
        return name, f"found credentials, expected {detail['msg']}"
    if problem == "rule":
        key = f"{name}.{context['key']}".lstrip(".")
        return key, f"found {_shown(context['found'])}, expected {context['expected']}"
    found = "a value not shown" if _is_hidden(path) else _shown(detail["input"])
    return name, f"found {found}, expected {expected}"


def _is_hidden(path: list[str]) -> bool:
    """Whether a key's value may be a secret: an option of a file system, or of `notify` a webhook's URL, and what
    was written where the name of a variable should be."""
    return "storage_options" in path or (path[:1] == ["notify"] and path[1:2] != ["events"])


def _place(detail: ErrorDetails, line_of: LineOf) -> str:
    """The line of an error's value, in brackets; nothing for a key that is missing."""
    if detail["type"] == "missing":
        return ""
    if detail["type"] == "rule":
        # A rule names its key where several make one: those of model.stage1 and model.fusion have no line of their own.
        context = detail["ctx"]
        line = line_of((*detail["loc"], context["key"]), context["found"])
    else:
        line = line_of(detail["loc"], detail["input"])
    return "" if line is None else f" (line {line})"


def _shown(value: object) -> str:
    """A value as a user wrote it, shortened, and without the secrets of a URL."""
    if isinstance(value, (Mapping, BaseModel)):
        return "a section"
    if isinstance(value, dt.date):
        return f"'{value}'"
    if isinstance(value, str):
        value = shown_url(value)
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _locate(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], str, list[str]]:
    """The keys of an error's location without pydantic's own steps, what the last key allows, and the keys next to it.

    An item of a list of sections is part of its key (`data[1]`), an item of a list of values a step (`tiles`, `1`).
    """
    section: type[BaseModel] | None = kind
    path: list[str] = []
    expected, siblings = "", []
    item, sections = "", False  # of the last key: what is allowed for its items, and whether they are sections
    for step in location:
        if isinstance(step, int) and sections:
            path[-1] += f"[{step}]"
        elif section is None:
            if isinstance(step, int) or path[-1] == "storage_options":
                path.append(str(step))
                expected = item or expected
        else:
            path.append(str(step))
            siblings = list(section.model_fields)
            field = section.model_fields.get(str(step))
            if field is None:
                break
            expected = field.description or ""
            inner = (field.annotation, *get_args(field.annotation))
            section = next((x for x in inner if isinstance(x, type) and issubclass(x, BaseModel)), None)
            item, sections = _described_item(field.annotation), section not in (None, field.annotation)
    return path, expected, siblings


def _described_item(annotation: Any) -> str:
    """The description that a type within an annotation carries, such as that of the items of a list; else nothing."""
    for inner in get_args(annotation):
        for note in getattr(inner, "__metadata__", ()):
            if isinstance(note, FieldInfo) and note.description:
                return note.description
        if found := _described_item(inner):
            return found
    return ""
