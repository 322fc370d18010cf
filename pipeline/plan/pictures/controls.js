// ---- details of a cell ------------------------------------------------------------------------------------------------

function describe(plan, state, cell, tip) {
  const zone = plan.zones.find(z => cell >= z.first && cell < z.stop), list = plan.list[cell];
  const members = Array.from(plan.members.subarray(plan.first[list], plan.first[list + 1]));
  const chip = plan.kind === "chip", what = chip ? "Chip" : "Shard";
  const lines = [`${day(plan.days[plan.date[cell]])}${chip ? "" : ", most of its " + plan.chips_of[cell] + " chips"}`,
                 `clear ${percent(plan.clear[cell] / 1e4)}, covered ${percent(plan.covered[cell] / 1e4)}`];
  const done = m => (state.mode === "balance" ? `, ${shiftWords(plan, plan.balance.by_scene[m][state.band])} in ${plan.balance.bands[state.band]}` : "")
    + (plan.hazy.has(m) ? ", hazy" : "");
  const items = members.slice(0, 6).map(m => element("li", { textContent: `${plan.scenes_table[m][0]}, ${day(plan.scenes_table[m][1])}${done(m)}` }));
  if (members.length > 6) items.push(element("li", { textContent: `and ${members.length - 6} more`, style: "list-style: none" }));
  tip.replaceChildren(
    element("b", { textContent: `${what} row ${plan.row[cell]}, column ${plan.col[cell]}` }),
    element("span", { textContent: `${zone.name} (EPSG:${zone.epsg})` }), element("br"),
    element("span", { textContent: lines[0] }), element("br"), element("span", { textContent: lines[1] }), element("ol", {}, items));
}

function showTip(plan, state, canvas, x, y) {
  const tip = $("tip"), px = Math.floor(x * state.ratio), py = Math.floor(y * state.ratio);
  const inside = px >= 0 && py >= 0 && px < state.w && py < state.h, cell = inside ? state.cells[py * state.w + px] : -1;
  if (cell !== state.selected) { state.selected = cell; state.draw(); if (cell >= 0) describe(plan, state, cell, tip); }
  tip.hidden = cell < 0;
  if (cell < 0) return;
  tip.style.left = tip.style.top = "6px";  // where it has its full size, to measure it
  const width = canvas.clientWidth, height = canvas.clientHeight, w = tip.offsetWidth, h = tip.offsetHeight;
  const left = x + 18 + w < width ? x + 18 : x - 18 - w, top = y + 18 + h < height ? y + 18 : y - 18 - h;
  tip.style.left = `${Math.max(6, Math.min(width - w - 6, left))}px`;
  tip.style.top = `${left < 6 && width < 500 ? (y > height / 2 ? 6 : height - h - 6) : Math.max(6, Math.min(height - h - 6, top))}px`;
}

// ---- legend and table -----------------------------------------------------------------------------------------------

function legend(plan, state, changed) {
  const box = $("legend"), total = plan.chips.reduce((a, b) => a + b, 0), parts = [];
  const sign = (cls, style, text, count) => element("div", { className: "sign" }, [element("span", { className: "swatch " + cls, style }),
    element("span", { textContent: text }), element("span", { textContent: count })]);
  const gradient = stops => element("div", { className: "ramp", style: `background: linear-gradient(90deg, ${stops.join(", ")})` });
  const ends = texts => element("div", { className: "ends" }, texts.map(textContent => element("span", { textContent })));
  const stripes = () => plan.cloudy ? [sign("stripes", "", "chips with no clear pixel", number(plan.cloudy))] : [];
  if (state.mode === "date") {
    parts.push(element("p", { className: "note", textContent: `Date of ${plan.kind === "chip" ? "a chip's" : "most chips'"} first scene, paler where less is clear. Click a date to highlight it.` }));
    parts.push(element("div", { className: "dates" }, plan.days.map((text, i) => {
      const button = element("button", { onclick: () => { state.chosen.has(i) ? state.chosen.delete(i) : state.chosen.add(i); changed(); } }, [
        element("span", { className: "swatch", style: `background: ${plan.colours[i]}` }), element("span", { textContent: day(text) }),
        element("span", { textContent: number(plan.chips[i]) }), element("span", { textContent: percent(plan.chips[i] / total) })]);
      button.setAttribute("aria-pressed", state.chosen.has(i));
      return button;
    })));
    if (plan.borders !== null) parts.push(sign("", "height: 2px; background: var(--ink); border-radius: 0", "sides between dates", number(plan.borders)));
    parts.push(...stripes());
  } else if (state.mode === "clear") {
    parts.push(element("p", { className: "note", textContent: `Share of a ${plan.kind} that its scenes show without clouds.` }), gradient(plan.ramp), ends(["0 %", "50 %", "100 %"]), ...stripes());
  } else if (state.mode === "balance") parts.push(...balanceLegend(plan, state, changed, { sign, gradient, ends }));
  else {
    parts.push(element("p", { className: "note", textContent: plan.kind === "chip" ? "Scenes that a chip is made from." : "Scenes that a chip is made from, mean of a shard." }), gradient(SCENE_RAMP), ends(plan.most > 1 ? ["1", String(plan.most)] : ["1"]));
    const counts = new Map();
    for (const s of plan.scenes) counts.set(Math.round(s / 100), (counts.get(Math.round(s / 100)) || 0) + 1);
    for (const [n, count] of [...counts].sort((a, b) => a[0] - b[0])) {
      const rgb = along(SCENE_RAMP, plan.most > 1 ? (n - 1) / (plan.most - 1) : 0).map(Math.round);
      parts.push(sign("", `background: rgb(${rgb})`, n === 1 ? "1 scene" : `${n} scenes`, number(count)));
    }
  }
  const scrolled = box.querySelector(".dates")?.scrollTop, focused = [...box.querySelectorAll("button")].indexOf(document.activeElement);
  box.replaceChildren(...parts);
  if (scrolled) box.querySelector(".dates").scrollTop = scrolled;
  if (focused >= 0) box.querySelectorAll("button")[focused]?.focus();
}

function balanceLegend(plan, state, changed, { sign, gradient, ends }) {
  const { kind, bands, ramp, limits, by_scene } = plan.balance, limit = limits[state.band];
  const whose = plan.kind === "chip" ? "a chip's first scene" : "the scene that most of a shard's chips use first", lost = { unknown: 0, hazy: 0 };
  for (let cell = 0; cell < plan.row.length; cell++) {
    const scene = firstScene(plan, cell);
    if (by_scene[scene][state.band] === null) lost.unknown += 1;
    if (plan.hazy.has(scene)) lost.hazy += 1;
  }
  const choose = element("div", { className: "modes bands" }, bands.map((band, i) => {
    const button = element("button", { textContent: band, onclick: () => { state.band = i; changed(); } });
    button.setAttribute("aria-pressed", i === state.band);
    return button;
  }));
  choose.setAttribute("role", "group"); choose.setAttribute("aria-label", "Band");
  const what = kind === "factor" ? `Factor that brings ${whose} to nadir, on average.` : `Reflectance that gain and offset add to ${whose}, on average.`;
  const signs = [[lost.hazy, "from a hazy scene"], [lost.unknown, "from a scene that is not balanced"]].filter(([count]) => count);
  return [element("p", { className: "note", textContent: what }), choose, gradient(ramp), ends([-limit, 0, limit].map(v => v || kind === "factor" ? shiftWords(plan, v, 3) : "0")),
          ...signs.map(([count, text]) => sign("", text.endsWith("balanced") ? "background: var(--bare)" : "", `${plan.kind}s ${text}`, number(count)))];
}

/** What the table has more of scenes that are balanced: shifts by band, differences to other scenes. */
function balanceColumns(plan) {
  if (!plan.balance) return { heads: [], of: () => [] };
  const { kind, bands, by_scene, apart } = plan.balance, known = apart.some(pair => pair[0] !== null);
  return { heads: [...bands.map(band => `${kind} ${band}`), ...(known ? ["apart before", "apart after"] : [])],
           of: i => [...by_scene[i], ...(known ? apart[i] : [])] };
}

function table(plan) {
  const extra = balanceColumns(plan), plain = 7, bands = plan.balance ? plan.balance.bands.length : 0;
  const heads = ["scene", "date", "tile", "baseline", "cloud %", "chips, first", "chips, all", ...extra.heads];
  const every = plan.scenes_table.map((row, i) => [...row, ...extra.of(i)]), hazy = new Set([...plan.hazy].map(i => plan.scenes_table[i][0]));
  const words = (value, i) => i === 1 ? day(value) : i === 4 ? value.toFixed(1) : i < 5 ? value : i < plain ? number(value)
    : i < plain + bands ? shiftWords(plan, value) : value === null ? "–" : (value / 1e5).toFixed(4);
  const at = new Map(plan.days.map((d, i) => [d, i])), order = { column: 5, up: false, all: false };
  const fill = () => {
    const { column, up } = order, key = row => row[column] ?? -Infinity, rows = [...every].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (up ? 1 : -1));
    $("rows").replaceChildren(...rows.slice(0, order.all ? rows.length : 50).map(row => element("tr", {}, row.map((value, i) => {
      const cell = element("td", { textContent: words(value, i) });
      if (i === 0 && hazy.has(value)) cell.append(element("span", { className: "hazy", textContent: "hazy" }));
      if (i === 1 && at.has(value)) cell.prepend(element("span", { className: "swatch", style: `background: ${plan.colours[at.get(value)]}` }));
      return cell;
    }))));
    $("more").hidden = order.all || rows.length <= 50;
    $("more").textContent = `Show all ${number(rows.length)}`;
    $("heads").replaceChildren(...heads.map((text, i) => {
      const head = element("th", { scope: "col" }, [element("button", { textContent: text + (i === column ? (up ? " ↑" : " ↓") : ""),
        onclick: () => { Object.assign(order, { column: i, up: i === column ? !up : i < 4 }); fill(); $("heads").children[i].firstChild.focus(); } })]);
      if (i === column) head.ariaSort = up ? "ascending" : "descending";
      return head;
    }));
  };
  $("more").onclick = () => { order.all = true; fill(); };
  fill();
}

// ---- input ----------------------------------------------------------------------------------------------------------

function steer(plan, state, canvas) {
  const fingers = new Map();
  let moved = 0, settled;
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const moving = () => { state.draw(true); clearTimeout(settled); settled = setTimeout(() => state.draw(), 140); };
  const place = event => { const r = canvas.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
  const hide = () => { $("tip").hidden = true; if (state.selected >= 0) { state.selected = -1; state.draw(); } };
  const zoom = (factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => { state.view.zoom(factor, x, y, ...size()); moving(); };
  canvas.addEventListener("pointerdown", event => {
    fingers.set(event.pointerId, place(event)); moved = 0; state.cross = false;
    canvas.setPointerCapture(event.pointerId); canvas.classList.add("dragged");
  });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = place(event), before = fingers.get(event.pointerId);
    if (!before) { if (event.pointerType === "mouse") showTip(plan, state, canvas, x, y); return; }
    const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    moved += Math.hypot(x - before[0], y - before[1]);
    if (moved < 5 && !other) return;
    if (other) {
      const spread = Math.hypot(x - other[0], y - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1]));
      state.view.move((x - before[0]) / 2, (y - before[1]) / 2);
      state.view.zoom(spread, (x + other[0]) / 2, (y + other[1]) / 2, ...size());
    } else state.view.move(x - before[0], y - before[1]);
    fingers.set(event.pointerId, [x, y]); $("tip").hidden = true; moving();
  });
  const release = event => {
    const alone = fingers.size === 1;
    fingers.delete(event.pointerId); canvas.classList.toggle("dragged", fingers.size > 0);
    if (event.type === "pointerup" && alone && moved < 5) { state.selected = -2; showTip(plan, state, canvas, ...place(event)); }
  };
  canvas.addEventListener("pointerup", release); canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", event => { if (event.pointerType === "mouse" && !fingers.size) hide(); });
  canvas.addEventListener("wheel", event => {
    event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0018)), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", event => zoom(2, ...place(event)));
  const keys = { ArrowLeft: [80, 0], ArrowRight: [-80, 0], ArrowUp: [0, 80], ArrowDown: [0, -80] };
  const look = () => { state.cross = true; paint(plan, state, canvas); const [w, h] = size(); showTip(plan, state, canvas, w / 2, h / 2); };
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (keys[event.key]) state.view.move(...keys[event.key]);
    else if (event.key === "+" || event.key === "=") state.view.zoom(1.5, ...size().map(v => v / 2), ...size());
    else if (event.key === "-") state.view.zoom(1 / 1.5, ...size().map(v => v / 2), ...size());
    else if (event.key === "0" || event.key === "Home") state.view.fit(...size());
    else return;
    event.preventDefault(); look();
  });
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) look(); });
  canvas.addEventListener("blur", () => { state.cross = false; hide(); state.draw(); });
  $("in").onclick = () => zoom(1.6); $("out").onclick = () => zoom(1 / 1.6);
  $("all").onclick = () => { state.view.fit(...size()); moving(); };
}

async function start() {
  const plan = await unpack(), canvas = $("map");
  plan.most = Math.max(1, Math.ceil(plan.scenes.reduce((a, b) => Math.max(a, b), 0) / 100));
  plan.hazy = new Set(plan.balance?.hazy);
  const state = { mode: "date", band: 0, chosen: new Set(), selected: -1, cross: false, theme: theme(), view: new MapView(plan.view) };
  let due = 0;
  state.draw = quick => { cancelAnimationFrame(due); due = requestAnimationFrame(() => paint(plan, state, canvas, quick)); };
  const changed = () => { state.theme = theme(); state.colours = colour(plan, state); legend(plan, state, changed); state.draw(); };
  document.querySelector("[data-mode=balance]").hidden = !plan.balance;
  for (const button of document.querySelectorAll("[data-mode]")) button.onclick = () => {
    state.mode = button.dataset.mode;
    if (state.mode !== "date") state.chosen.clear();
    for (const other of document.querySelectorAll("[data-mode]")) other.setAttribute("aria-pressed", other === button);
    changed();
  };
  let width = canvas.clientWidth;
  state.view.fit(width, canvas.clientHeight);
  new ResizeObserver(() => {
    if (canvas.clientWidth !== width) { width = canvas.clientWidth; state.view.fit(width, canvas.clientHeight); }
    state.draw();
  }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  steer(plan, state, canvas); table(plan); changed();
}

if (typeof DecompressionStream === "undefined") $("legend").textContent = "This page needs a browser from 2023 or later; the same map is in the PNG next to it.";
else start();
