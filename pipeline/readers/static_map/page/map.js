// The map's state, its controls, and its address.

import * as address from "./address.js";
import { openCube, tenOf } from "./cube.js";
import { $, element, round, said } from "./dom.js";
import { legend } from "./legend.js";
import { nameOf } from "./periods.js";
import { Sides } from "./sides.js";
import { divider } from "./swipe.js";

const NONE = "nothing",
  TEN = "10m";

$("trouble").hidden = true;
$("trouble").classList.add("running");
busy(true);
const cube = await start().catch(error => {
  say(error.message);
  busy(false);
  throw error;
});
const layers = new Map(cube.layers.map(layer => [layer.name, layer]));
const names = new Map(cube.periods.map(period => [period.label, nameOf(period)]));
const narrow = matchMedia("(max-width: 760px)");
const metres = [
  cube.zones[0].gsd_m,
  tenOf(cube.zones[0]) && (cube.zones[0].gsd_m * tenOf(cube.zones[0])) / cube.zones[0].pixel,
];
const [fine, ten] = metres.map(gsd => gsd && `${Number(gsd.toPrecision(3))} m`);
const usual = {
  layer: cube.layers[0].name,
  period: cube.periods.at(-1).label,
  compare: ten ? TEN : NONE,
  at: 0.5,
  low: null,
  high: null,
};
const state = { ...usual };
let remembering; // timer
const given = valid(address.read(location.hash));
Object.assign(state, given.state);

const sides = new Sides(cube, { stage: $("map"), tools: $("tools") }, given.view, busy, say);
const putDivider = divider($("swipe"), $("stage"), at => {
  state.at = Math.round(at * 1000) / 1000;
  sides.cut(at);
  sideNames();
  remember();
});

fillControls();
listen();
apply();

async function start() {
  if (!document.createElement("canvas").getContext("webgl"))
    throw new Error("This browser has no WebGL, which the map is drawn with; turn it on, or take another browser");
  return openCube(JSON.parse($("settings").textContent), say);
}

// ---- from the state to the page -------------------------------------------------------------------------------------

function apply() {
  const layer = layers.get(state.layer);
  $("trouble").hidden = true;
  $("layer").value = state.layer;
  $("compare").value = state.compare;
  $("period").value = cube.periods.findIndex(period => period.label === state.period);
  $("period-name").textContent = names.get(state.period);
  $("period").setAttribute("aria-valuetext", names.get(state.period));
  $("earlier").disabled = $("period").value === "0";
  $("later").disabled = Number($("period").value) === cube.periods.length - 1;
  $("range").hidden = layer.kind === "labels";
  $("summary").textContent = `${layer.title} · ${names.get(state.period)}`;
  showRange(layer);
  $("legend").replaceChildren(...legend(layer, ...rangeOf(layer), cube.bands));
  const [low, high] = rangeOf(layer),
    side = { layer, period: state.period, low, high, ten: false };
  const compared = state.compare !== NONE;
  const other = state.compare === TEN ? { ten: true } : { period: state.compare };
  sides.show(side, compared ? { ...side, ...other } : null);
  for (const id of ["swipe", "left-name", "right-name"]) $(id).hidden = !compared;
  putDivider(state.at);
}

function rangeOf(layer) {
  return [state.low ?? layer.low, state.high ?? layer.high];
}

function showRange(layer) {
  const [low, high] = rangeOf(layer),
    step = (layer.limits[1] - layer.limits[0]) / 200;
  for (const [id, value] of [
    ["low", low],
    ["high", high],
  ]) {
    Object.assign($(id), { min: layer.limits[0], max: layer.limits[1], step });
    $(id).value = value;
    $(`${id}-said`).textContent = said(value);
  }
}

function sideNames() {
  const period = state.compare !== TEN ? names.get(state.compare) : null;
  $("left-name").textContent = period ?? averaged();
  $("right-name").textContent = period ? names.get(state.period) : fine;
  const at = Math.round(state.at * 100);
  $("swipe").setAttribute(
    "aria-valuetext",
    `${at} % ${$("left-name").textContent}, ${100 - at} % ${$("right-name").textContent}`,
  );
}

function averaged() {
  return layers.get(state.layer).kind === "labels" ? `Most frequent at ${ten}` : `Averaged to ${ten}`;
}

/** A line about what went wrong. */
function say(text) {
  $("trouble").hidden = false;
  $("trouble").textContent = text;
}

function busy(now) {
  $("busy").hidden = !now;
  document.documentElement.dataset.map = now ? "busy" : "settled";
}

/** Browsers limit how often an address may change, so only settled states are written. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", address.write(state, sides.place)), 100);
}

// ---- from people to the state ---------------------------------------------------------------------------------------

function fillControls() {
  document.title = `${cube.name} · map`;
  $("name").textContent = cube.name;
  $("facts").textContent = [
    `${cube.zones.length > 1 ? "UTM zones " : cube.zones[0].utm ? "UTM zone " : ""}${cube.zones.map(zone => zone.name).join(", ")}`,
    cube.periods.length > 1 ? `${cube.periods.length} periods` : names.get(cube.periods[0].label),
  ].join(" · ");
  for (const group of new Set(cube.layers.map(layer => layer.group))) {
    const members = cube.layers.filter(layer => layer.group === group);
    const options = members.map(({ name, title }) => new Option(title, name));
    $("layer").append(element("optgroup", { label: group }, options));
  }
  $("compare").append(new Option("Nothing", NONE));
  if (ten) $("compare").append(new Option(`Averaged to ${ten}`, TEN));
  if (cube.periods.length > 1) {
    const options = cube.periods.map(({ label }) => new Option(names.get(label), label));
    $("compare").append(element("optgroup", { label: "Another period" }, options));
  }
  $("period").max = cube.periods.length - 1;
  $("time").hidden = cube.periods.length < 2;
  $("zones").hidden = cube.zones.length < 2;
  $("zone").append(new Option("Go to …", ""), ...cube.zones.map(zone => new Option(zone.name, zone.epsg)));
}

function listen() {
  const change = more => {
    Object.assign(state, more);
    apply();
  };
  $("layer").addEventListener("change", () => change({ layer: $("layer").value, low: null, high: null }));
  $("compare").addEventListener("change", () => change({ compare: $("compare").value }));
  $("period").addEventListener("input", () => change({ period: cube.periods[$("period").value].label }));
  for (const [id, by] of [
    ["earlier", -1],
    ["later", 1],
  ]) {
    $(id).addEventListener("click", () => change({ period: cube.periods[Number($("period").value) + by].label }));
  }
  for (const id of ["low", "high"])
    $(id).addEventListener("input", () => {
      const [low, high] = rangeOf(layers.get(state.layer)),
        step = Number($(id).step);
      const value =
        id === "low" ? Math.min(Number($("low").value), high - step) : Math.max(Number($("high").value), low + step);
      change({ [id]: round(value) });
    });
  $("usual").addEventListener("click", () => change({ low: null, high: null }));
  $("all").addEventListener("click", () => sides.fit(cube.zones));
  $("zone").addEventListener("change", () => {
    const chosen = cube.zones.find(zone => String(zone.epsg) === $("zone").value);
    if (chosen) sides.fit([chosen]);
    $("zone").value = "";
  });
  $("toggle").addEventListener("click", () => openSheet($("toggle").getAttribute("aria-expanded") !== "true"));
  sides.map.on("moveend", remember);
  addEventListener("hashchange", () => {
    const next = valid(address.read(location.hash));
    Object.assign(state, usual, next.state);
    if (next.view) sides.go(next.view);
    apply();
  });
  const arrange = () => openSheet(!narrow.matches);
  narrow.addEventListener("change", arrange);
  arrange();
}

function openSheet(open) {
  $("toggle").setAttribute("aria-expanded", String(open));
  $("controls").hidden = !open;
}

/** The part of an address's state that this cube has. */
function valid({ view, pin, ...known }) {
  if ("layer" in known && !layers.has(known.layer)) for (const name of ["layer", "low", "high"]) delete known[name];
  if (!names.has(known.period)) delete known.period;
  if (![NONE, ...(ten ? [TEN] : []), ...names.keys()].includes(known.compare)) delete known.compare;
  const layer = layers.get(known.layer ?? usual.layer);
  if ((known.low ?? layer.low) >= (known.high ?? layer.high)) for (const name of ["low", "high"]) delete known[name];
  return { view, state: known };
}
