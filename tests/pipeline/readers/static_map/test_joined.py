"""Modules become one script that does what they did."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import in_browser, needs_chromium

from difffusr.pipeline.readers.static_map.joined import joined

MODULES = {
    "index.js": """
export { default as Store } from "shop/store.js";
export { twice, thrice as times3 } from "./deep/math.js";
import { twice } from "./deep/math.js";
import fallback from "./default.js";
export { named as renamed };
export const four = twice(2);
export let nine = 9;
export class Box {}
export async function later() { return 5; }
export function* count() { yield 6; }
const named = `export const inner = ${fallback}`;
""",
    "deep/math.js": 'import {\n    base,\n} from "../base.js";\nexport function twice(x) { return 2 * x * base; }\n'
    "function thrice(x) { return 3 * x * base; }\nexport { thrice };\n//# sourceMappingURL=math.js.map",
    "base.js": "export const base = 1;",
    "default.js": 'const text = "text";\nexport default text;',
    "packages/store.js": 'import { base } from "../base.js";\nclass Shop { get size() { return base; } }\n'
    "export default Shop;",
}


def written(folder: Path, modules: dict[str, str]) -> None:
    for name, text in modules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@needs_chromium
def test_a_script_exports_what_its_modules_did(tmp_path):
    written(tmp_path, MODULES)
    script = joined("index.js", tmp_path.joinpath, "it", {"shop/store.js": "packages/store.js"})
    (tmp_path / "page.html").write_text(f"<!doctype html><script>{script}</script>")
    found: dict[str, object] = {}

    async def do(page):
        await page.open(f"file://{tmp_path}/page.html", 900)
        for name, expression in {
            "names": "Object.keys(it).sort().join()",
            "values": "[it.four, it.nine, it.twice(4), it.times3(4), new it.Store().size, it.renamed].join()",
            "later": "it.later()",
            "count": "[...it.count()].join()",
            "box": "new it.Box() instanceof it.Box",
        }.items():
            found[name] = await page.find(expression)

    in_browser(do)
    assert found == {
        "names": "Box,Store,count,four,later,nine,renamed,times3,twice",
        "values": "4,9,8,12,1,export const inner = text",
        "later": 5,
        "count": "6",
        "box": True,
    }


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"index.js": 'export * from "./a.js";', "a.js": ""}, r"index.js: cannot be joined: export \*"),
        ({"index.js": 'import * as a from "./a.js";', "a.js": ""}, "cannot be joined: import"),
        ({"index.js": "export default function () {}"}, "cannot be joined"),
        ({"index.js": 'import "./a.js";', "a.js": ""}, "cannot be joined"),
        ({"index.js": 'import { b } from "./a.js";', "a.js": 'import { c } from "./index.js";'}, "imports itself"),
    ],
)
def test_what_is_written_in_another_way_is_refused(tmp_path, modules, said):
    written(tmp_path, modules)
    with pytest.raises(ValueError, match=said):
        joined("index.js", tmp_path.joinpath, "it")
