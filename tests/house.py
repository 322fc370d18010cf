"""Draws the house: the rooms of pipeline/ and kernels/ as layers, and which room imports which, from the code itself.

``python tests/house.py`` writes tests/house.svg (``make house``). The layers are those of the import rules in
pyproject.toml; arrows that follow from others are left out.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "tests" / "house.svg"

WIDTH, MARGIN, GAP, ROW_GAP, LINE, HEAD = 1240, 24, 18, 34, 15, 46
INK, SOFT, LINES = "#1f2328", "#606770", "#8a94a6"
FILL = {"pipeline": "#eef3fb", "kernels": "#fbf3e6"}


@dataclass(frozen=True)
class Room:
    """A package or module directly below `kernels` or `pipeline`: its name, its job, what is in it."""

    floor: str
    name: str
    job: str
    contents: tuple[str, ...]

    @classmethod
    def at(cls, floor: str, name: str) -> Room:
        path = ROOT / floor / name
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        job = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]
        inside = sorted(path.iterdir()) if path.is_dir() else []
        modules = [entry.stem for entry in inside if entry.suffix == ".py" and entry.stem != "__init__"]
        folders = [f"{entry.name}/" for entry in inside if (entry / "__init__.py").exists()]
        return cls(floor, name, job, tuple(modules + folders))


def layers() -> dict[str, list[list[str]]]:
    """By floor, the rooms of each layer, the upper ones first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {
        contract["containers"][0].removeprefix("difffusr."): [layer.split(" | ") for layer in contract["layers"]]
        for contract in contracts
        if contract["type"] == "layers" and contract["containers"][0] in ("difffusr.kernels", "difffusr.pipeline")
    }


def arrows(floor: str, rooms: list[str]) -> set[tuple[str, str]]:
    """Which room imports which, without what follows from the rest."""
    graph = grimp.build_graph("difffusr.kernels", "difffusr.pipeline")
    direct: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        parts = module.split(".")
        if len(parts) < 3 or parts[1] != floor:
            continue
        for imported in graph.find_modules_directly_imported_by(module):
            other = imported.split(".")
            if len(other) > 2 and other[1] == floor and other[2] != parts[2]:
                direct[parts[2]].add(other[2])

    def below(room: str) -> set[str]:
        return direct[room].union(*(below(other) for other in direct[room]))

    return {
        (room, other)
        for room in rooms
        for other in direct[room]
        if not any(other in below(between) for between in direct[room] - {other})
    }


def wrapped(words: list[str], width: int) -> list[str]:
    """Words in lines of at most `width` characters."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if len(longer) <= width else [*lines, word]
    return lines


def drawn(floor: str, rows: list[list[str]], top: int) -> tuple[list[str], int]:
    """A floor as SVG, and where it ends."""
    out, places, y = [], {}, top + HEAD
    for row in rows:
        side = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) // len(row)
        side = min(side, 760)
        left = (WIDTH - side * len(row) - GAP * (len(row) - 1)) // 2
        cells = []
        for name in row:
            room = Room.at(floor, name)
            across = side // 7
            cells.append((room, wrapped(room.job.split(), across), wrapped(list(room.contents), across)))
        height = max(34 + LINE * (len(job) + len(contents)) for _, job, contents in cells)
        for i, (room, job, contents) in enumerate(cells):
            x = left + i * (side + GAP)
            places[room.name] = (x, y, side, height)
            out.append(
                f'<rect x="{x}" y="{y}" width="{side}" height="{height}" rx="6" fill="{FILL[floor]}" stroke="{LINES}"/>'
            )
            out.append(f'<text x="{x + 12}" y="{y + 22}" font-weight="bold" font-size="15">{escape(room.name)}</text>')
            for k, line in enumerate(job):
                out.append(f'<text x="{x + 12}" y="{y + 40 + LINE * k}">{escape(line)}</text>')
            for k, line in enumerate(contents):
                at = y + 40 + LINE * (len(job) + k)
                out.append(f'<text x="{x + 12}" y="{at}" fill="{SOFT}">{escape(line)}</text>')
        y += height + ROW_GAP

    def middle(name: str) -> tuple[float, str]:
        left, _, side, _ = places[name]
        return left + side / 2, name

    lines = []
    found = sorted(arrows(floor, [name for row in rows for name in row]))
    for room, other in found:
        x0, y0, w0, h0 = places[room]
        x1, y1, w1, _ = places[other]
        out_of = sorted({b for a, b in found if a == room}, key=middle)
        into = sorted({a for a, b in found if b == other}, key=middle)
        sx = x0 + w0 * (out_of.index(other) + 1) / (len(out_of) + 1)
        ex = x1 + w1 * (into.index(room) + 1) / (len(into) + 1)
        sy, ey = y0 + h0, y1 - 7
        bend = (ey - sy) * 0.5
        lines.append(
            f'<path d="M{sx:.0f} {sy} C{sx:.0f} {sy + bend:.0f} {ex:.0f} {ey - bend:.0f} {ex:.0f} {ey}" fill="none" '
            f'stroke="{LINES}" stroke-width="1.4" marker-end="url(#tip)"/>'
        )
    title = f'<text x="{MARGIN}" y="{top + 26}" font-size="20" font-weight="bold">{floor}/</text>'
    return [title, *lines, *out], y


def picture() -> str:
    """The whole house as SVG."""
    out: list[str] = []
    y = 10
    for floor, rows in sorted(layers().items(), reverse=True):
        part, y = drawn(floor, rows, y)
        out += part
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12.5" fill="{INK}">'
    )
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{LINES}"/></marker></defs>'
    )
    return "\n".join([head, tip, '<rect width="100%" height="100%" fill="white"/>', *out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture())
    print(PICTURE.relative_to(ROOT))
