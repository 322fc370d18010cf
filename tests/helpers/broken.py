"""Objects with one thing wrong, for tests of what refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def put(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Breaks an object by putting a value at a place, or nothing where the value is ...."""

    def change(thing: Any) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in place.split("/")]
        for step in way:
            thing = thing[step]
        if value is ...:
            del thing[last]
        else:
            thing[last] = value

    return change
