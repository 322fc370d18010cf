"""A report as one self-contained HTML page: no other file, no network, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import Final

from difffusr.pipeline.plan.pictures import fill_template
from difffusr.pipeline.readers.report.cube_section import cube_name, cube_section, page_head
from difffusr.pipeline.readers.report.facts import CubeReport
from difffusr.pipeline.readers.report.period_section import map_of, period_section

#: The page, with places for %HEAD%, %PERIODS%, …
_TEMPLATE: Final = Path(__file__).with_name("page.html")


def to_page(report: CubeReport) -> str:
    """The page. The same report gives the same page."""
    maps = [map_of(report, i) for i in range(len(report.periods))]
    rules = [drawn.rules() for drawn in maps]
    if len(report.periods) > 1:
        shown = "main:has(#p{0}:checked) .period:not(.p{0}){{display:none}}"
        rules += [shown.format(i) for i in range(len(report.periods))]
    template = _TEMPLATE.read_text(encoding="utf-8")
    styled = "\n".join(rules)
    return fill_template(
        template,
        POLICY=_policy(fill_template(template, RULES=styled)),
        TITLE=escape(cube_name(report)),
        RULES=styled,
        HEAD=page_head(report),
        PERIODS="".join(period_section(report, i, maps[i]) for i in range(len(report.periods))),
        CUBE=cube_section(report),
    )


def _policy(template: str) -> str:
    """Nothing may be loaded; only the template's own style and script may run."""

    def digest(name: str) -> str:
        inside = template.partition(f"<{name}>")[2].partition(f"</{name}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    allowed = f"img-src data:; style-src {digest('style')}; script-src {digest('script')}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
