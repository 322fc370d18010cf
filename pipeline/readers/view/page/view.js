// The map's state, its controls, and its address.

import * as address from "./address.js";
import { $, element, round, said } from "./dom.js";
import { Input, nameOf as sceneName } from "./input.js";
import { legend } from "./legend.js";
import { nameOf } from "./periods.js";
import { Sides } from "./sides.js";
import { showSpectrum } from "./spectrum.js";
import { divider } from "./swipe.js";

const NONE = "nothing",
  TEN = "10m",
  SCENE = "scene";
const SHOWN = "true-colour"; // of a scene next to what it has not, such as quality
const WAIT_MS = 250; // pause of a slider before tiles are requested

const cube = await (await fetch("cube.json")).json();
const layers = new Map(cube.layers.map(layer => [layer.name, layer]));
const narrow = matchMedia("(max-width: 760px)");
const names = new Map(cube.periods.map(period => [period.label, nameOf(period)]));
const usual = {
  layer: cube.layers[0].name,
  period: cube.periods.at(-1).label,
  compare: TEN,
  scene: null,
  at: 0.5,
  low: null,
  high: null,
  basemap: null,
  pin: null,
};
const state = { ...usual };

let place = null; // the server's answer for the pin
let asked = 0; // number of requests so far
let noticeUntil = 0;
let waiting, remembering; // timers
const given = valid(address.read(location.hash));
Object.assign(state, given.state);

const whole = extentOf(cube.zones);
const start = given.view
  ? { center: [given.view.lon, given.view.lat], zoom: given.view.zoom }
  : { bounds: whole, fitBoundsOptions: { padding: 24, maxZoom: 17 } };
const sides = new Sides(
  cube,
  { after: $("after"), before: $("before"), degrees: $("degrees") },
  start,
  cube.credit,
  busy,
  cube.basemap,
);
sides.troubled = trouble;
sides.lost = () => {
  state.basemap = "off";
  apply();
  notify("The basemap does not answer; the map goes on without it");
};
const input = new Input(cube.scenes, layers.get("source").labels, () => {
  state.scene = input.wanted;
  apply();
  remember();
});
const putDivider = divider($("swipe"), $("stage"), at => {
  state.at = Math.round(at * 1000) / 1000;
  sides.cut(at);
  sideNames();
  remember();
  if (state.compare === SCENE) input.follow(state.period, sides.boundsLeft(at));
});

fillControls();
listen();
sides.outlines();
apply();
if (state.pin) ask(...state.pin);

// ---- from the state to the page -------------------------------------------------------------------------------------

function apply() {
  const layer = layers.get(state.layer);
  $("layer").value = state.layer;
  $("compare").value = state.compare;
  $("basemap").checked = state.basemap !== "off";
  $("period").value = cube.periods.findIndex(period => period.label === state.period);
  $("period-name").textContent = names.get(state.period);
  $("period").setAttribute("aria-valuetext", names.get(state.period));
  $("earlier").disabled = $("period").value === "0";
  $("later").disabled = Number($("period").value) === cube.periods.length - 1;
  $("range").hidden = layer.kind === "labels";
  $("summary").textContent = `${layer.title} · ${names.get(state.period)}`;
  showRange(layer);
  $("legend").replaceChildren(...legend(layer, ...rangeOf(layer), cube.bands));
  if (place) showSpectrum(cube, place, state, names, compareWithScene);
  input.wanted = state.scene;
  showInput();
  const compared = state.compare !== NONE;
  sides.show(urlOf(state.period, false), ...(compared ? compareWith() : [null]));
  sides.below(state.basemap !== "off");
  for (const id of ["swipe", "left-name", "right-name"]) $(id).hidden = !compared;
  putDivider(state.at);
  notices();
}

/** The scene to draw on the left side; null where there is none, and the cube is averaged there meanwhile. */
function sceneShown() {
  return state.compare === SCENE && input.shown?.period === state.period ? input.shown : null;
}

/** What to draw on the left side: the URL of its tiles, and at which zooms they are. */
function compareWith() {
  const scene = sceneShown();
  if (scene) return [urlOfScene(scene), scene.zooms];
  return [[TEN, SCENE].includes(state.compare) ? urlOf(state.period, true) : urlOf(state.compare, false)];
}

function urlOfScene({ number, period }) {
  const own = layers.get(state.layer),
    layer = own.scene ? own : layers.get(SHOWN);
  const [low, high] = own.scene ? rangeOf(own) : [layer.low, layer.high];
  const path = `scenes/${encodeURIComponent(period)}/${number}/${encodeURIComponent(layer.name)}`;
  return `${new URL(path, location.href)}/{z}/{x}/{y}.png?${new URLSearchParams({ low, high, v: cube.version })}`;
}

/** Show a pixel's own scene on the left side. */
function compareWithScene(number) {
  Object.assign(state, { compare: SCENE, scene: number });
  apply();
  remember();
}

/** The choice of scenes, and why there is none. */
function showInput() {
  const why = input.why(state.period);
  const option = [...$("compare").options].find(one => one.value === SCENE);
  option.disabled = why !== null;
  if (why !== null && state.compare === SCENE) {
    state.compare = TEN;
    $("compare").value = TEN;
  }
  const wanted = state.compare === SCENE;
  if (wanted && input.looked !== `${state.period} ${state.scene}`) {
    input.looked = `${state.period} ${state.scene}`;
    input.look(state.period, sides.boundsLeft(state.at));
  }
  if (!wanted) input.looked = null;
  $("input").hidden = !wanted;
  const scene = sceneShown();
  const text = why ?? (wanted ? (input.said ?? (scene && `${scene.id}, as measured`)) : null) ?? null;
  $("input-why").hidden = text === null;
  $("input-why").textContent = text ?? "";
}

function urlOf(period, averaged) {
  const [low, high] = rangeOf(layers.get(state.layer));
  const query = new URLSearchParams({ low, high, ...(averaged ? { averaged } : {}), v: cube.version });
  const path = `tiles/${encodeURIComponent(state.layer)}/${encodeURIComponent(period)}`;
  return `${new URL(path, location.href)}/{z}/{x}/{y}.png?${query}`;
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
  const layer = layers.get(state.layer),
    scene = sceneShown(),
    other = names.get(state.compare);
  const averaged = layer.kind === "labels" ? "Most frequent in" : "Averaged to";
  $("left-name").textContent = scene
    ? `Scene of ${sceneName({ ...scene, tile: "" })}${layer.scene ? "" : `, ${layers.get(SHOWN).title.toLowerCase()}`}`
    : (other ?? `${averaged} ${cube.sides[1]}`);
  $("left-name").title = scene ? `${scene.id}, as measured` : "";
  $("right-name").textContent = other ? names.get(state.period) : cube.sides[0];
  const at = Math.round(state.at * 100);
  $("swipe").setAttribute(
    "aria-valuetext",
    `${at} % ${$("left-name").textContent}, ${100 - at} % ${$("right-name").textContent}`,
  );
}

function notices() {
  if (Date.now() < noticeUntil) return;
  const text = sides.tooWide ? "Zoom in to see pixels" : sides.beforeTooWide ? "Zoom in to see the scene's pixels" : "";
  $("notice").hidden = text === "";
  $("notice").textContent = text;
}

function notify(text) {
  $("notice").hidden = false;
  $("notice").textContent = text;
  noticeUntil = Date.now() + 4000;
  setTimeout(notices, 4050);
}

/** Say what a side cannot draw; of a scene also beside its choice, where it stays. */
function trouble(text, before) {
  if ($("notice").hidden || $("notice").textContent !== text) notify(text);
  if (!before || sceneShown() === null) return;
  input.said = text;
  showInput();
}

function busy(now) {
  $("busy").hidden = !now;
  document.documentElement.dataset.map = now ? "busy" : "settled";
}

/** Browsers limit how often an address may change, so only settled states are written. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", address.write(state, sides.view)), 100);
}

// ---- from people to the state ---------------------------------------------------------------------------------------

function fillControls() {
  document.title = `${cube.name} · map`;
  $("name").textContent = cube.name;
  $("facts").textContent = [
    `${cube.zones.length > 1 ? "UTM zones " : cube.zones[0].utm ? "UTM zone " : ""}${cube.zones.map(zone => zone.name).join(", ")}`,
    cube.periods.length > 1 ? `${cube.periods.length} periods` : names.get(cube.periods[0].label),
  ].join(" · ");
  for (const [group, members] of Map.groupBy(cube.layers, layer => layer.group)) {
    $("layer").append(
      element(
        "optgroup",
        { label: group },
        members.map(({ name, title }) => new Option(title, name)),
      ),
    );
  }
  $("compare").append(
    new Option("Nothing", NONE),
    new Option(`Averaged to ${cube.sides[1]}`, TEN),
    new Option("The input scene", SCENE),
  );
  $("base").hidden = cube.basemap === null;
  if (cube.periods.length > 1) {
    $("compare").append(
      element(
        "optgroup",
        { label: "Another period" },
        cube.periods.map(({ label }) => new Option(names.get(label), label)),
      ),
    );
  }
  $("period").max = cube.periods.length - 1;
  $("time").hidden = cube.periods.length < 2;
  $("zones").hidden = cube.zones.length < 2;
  $("zone").append(new Option("Go to …", ""), ...cube.zones.map(zone => new Option(zone.name, zone.epsg)));
}

function listen() {
  const change = (more, delay = 0) => {
    Object.assign(state, more);
    later(apply, delay);
  };
  $("layer").addEventListener("change", () => change({ layer: $("layer").value, low: null, high: null }));
  $("compare").addEventListener("change", () => change({ compare: $("compare").value }));
  $("basemap").addEventListener("change", () => change({ basemap: $("basemap").checked ? null : "off" }));
  $("period").addEventListener("input", () => change({ period: cube.periods[$("period").value].label }));
  for (const [id, by] of [
    ["earlier", -1],
    ["later", 1],
  ]) {
    $(id).addEventListener("click", () => change({ period: cube.periods[Number($("period").value) + by].label }));
  }
  for (const id of ["low", "high"])
    $(id).addEventListener("input", () => {
      const layer = layers.get(state.layer),
        step = Number($(id).step);
      if (id === "low") $("low").value = Math.min(Number($("low").value), rangeOf(layer)[1] - step);
      else $("high").value = Math.max(Number($("high").value), rangeOf(layer)[0] + step);
      state[id] = round(Number($(id).value));
      showRange(layer);
      $("legend").replaceChildren(...legend(layer, ...rangeOf(layer), cube.bands));
      later(apply, WAIT_MS);
    });
  $("usual").addEventListener("click", () => change({ low: null, high: null }));
  $("fit").addEventListener("click", fitRange);
  $("all").addEventListener("click", () => sides.fit(whole));
  $("zone").addEventListener("change", () => {
    const chosen = cube.zones.find(zone => String(zone.epsg) === $("zone").value);
    if (chosen) sides.fit(chosen.extent);
    $("zone").value = "";
  });
  $("toggle").addEventListener("click", () => {
    const open = $("toggle").getAttribute("aria-expanded") !== "true";
    openSheet(open);
    if (open) dismiss();
  });
  $("close").addEventListener("click", () => {
    dismiss();
    sides.after.getCanvas().focus();
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && !$("spectrum").hidden) dismiss();
  });
  sides.after.getCanvas().addEventListener("keydown", event => {
    if (event.key !== "Enter") return;
    const { lat, lon } = sides.view;
    ask(lat, lon);
  });
  sides.after.on("click", event => ask(event.lngLat.lat, event.lngLat.lng));
  sides.after.on("moveend", () => {
    remember();
    notices();
    if (state.compare === SCENE) input.follow(state.period, sides.boundsLeft(state.at));
  });
  addEventListener("hashchange", () => {
    const next = valid(address.read(location.hash));
    Object.assign(state, usual, next.state);
    if (next.view) sides.after.jumpTo({ center: [next.view.lon, next.view.lat], zoom: next.view.zoom });
    apply();
    if (state.pin) ask(...state.pin);
    else dismiss();
  });
  const arrange = () => openSheet(!narrow.matches);
  narrow.addEventListener("change", arrange);
  arrange();
}

function openSheet(open) {
  $("toggle").setAttribute("aria-expanded", String(open));
  $("controls").hidden = !open;
}

async function fitRange() {
  const [west, south, east, north] = sides.bounds;
  const path = `range/${encodeURIComponent(state.layer)}/${encodeURIComponent(state.period)}`;
  const found = await get(`${path}?${new URLSearchParams({ west, south, east, north })}`);
  if (found === null) return;
  const [least, most] = layers.get(state.layer).limits;
  state.low = Math.max(least, round(found.low));
  state.high = Math.min(most, Math.max(round(found.high), state.low + 0.001));
  apply();
}

/** Mark a place and show its spectrum. */
async function ask(lat, lon) {
  const number = ++asked;
  const found = await get(`spectrum?${new URLSearchParams({ lat, lon })}`);
  if (found === null || number !== asked) return;
  place = found;
  state.pin = [lat, lon];
  $("spectrum").hidden = false;
  $("spectrum").scrollTop = 0;
  if (narrow.matches) openSheet(false);
  $("said").textContent = showSpectrum(cube, place, state, names, compareWithScene);
  sides.mark(place);
  sides.uncover(place, $("spectrum").getBoundingClientRect(), narrow.matches);
  remember();
}

/** The server's answer; null, after a notice, if there is none. */
async function get(path) {
  try {
    const answer = await fetch(path);
    if (answer.ok) return await answer.json();
    notify((await answer.text()).trim());
  } catch {
    notify("The server no longer answers; start difffusr view again");
  }
  return null;
}

function dismiss() {
  asked++;
  place = null;
  state.pin = null;
  $("spectrum").hidden = true;
  sides.mark(null);
  remember();
}

// ---- helpers --------------------------------------------------------------------------------------------------------

/** The part of an address's state that this cube has. */
function valid({ view, ...known }) {
  if ("layer" in known && !layers.has(known.layer)) for (const name of ["layer", "low", "high"]) delete known[name];
  if (!names.has(known.period)) delete known.period;
  if (![NONE, TEN, SCENE, ...names.keys()].includes(known.compare)) delete known.compare;
  if (!Number.isInteger(known.scene) || known.scene < 1) delete known.scene;
  if (known.basemap !== "off") delete known.basemap;
  const layer = layers.get(known.layer ?? usual.layer);
  if ((known.low ?? layer.low) >= (known.high ?? layer.high)) for (const name of ["low", "high"]) delete known[name];
  return { view, state: known };
}

/** West, south, east, north of all zones. */
function extentOf(zones) {
  const [first, ...others] = zones.map(zone => zone.extent);
  return others.reduce((union, [west, south, east, north]) => {
    const turn = Math.round((union[0] - west) / 360) * 360; // next to it, on either side of 180°
    return [
      Math.min(union[0], west + turn),
      Math.min(union[1], south),
      Math.max(union[2], east + turn),
      Math.max(union[3], north),
    ];
  }, first);
}

function later(act, delay) {
  clearTimeout(waiting);
  waiting = setTimeout(act, delay);
}
