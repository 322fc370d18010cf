// The map's state as the part of its address after #, so that a shared address shows the same map.

const NAMES = ["layer", "period", "compare", "scene", "at", "low", "high", "basemap", "pin"];

/** The state in an address: a view {zoom, lat, lon} or null, and what else it names. */
export function read(hash) {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const state = {};
  for (const name of NAMES) if (found.has(name)) state[name] = found.get(name);
  for (const name of ["at", "low", "high", "scene"]) {
    if (name in state && !(state[name] !== "" && Number.isFinite(Number(state[name])))) delete state[name];
    else if (name in state) state[name] = Number(state[name]);
  }
  state.pin = numbers(state.pin ?? "", 2, ",");
  const view = numbers(found.get("map") ?? "", 3, "/");
  state.view = view && Math.abs(view[1]) <= 85 ? { zoom: view[0], lat: view[1], lon: view[2] } : null;
  return state;
}

/** The address of a state. */
export function write(state, view) {
  const digits = Math.max(2, Math.ceil(view.zoom / 3) + 1);
  const parts = [`map=${view.zoom.toFixed(2)}/${view.lat.toFixed(digits)}/${view.lon.toFixed(digits)}`];
  for (const name of NAMES) {
    const value = state[name];
    if (value === null || value === undefined) continue;
    const text = name === "pin" ? value.map(number => number.toFixed(7)).join(",") : String(value);
    parts.push(`${name}=${encodeURIComponent(text).replaceAll("%2C", ",")}`);
  }
  return `#${parts.join("&")}`;
}

function numbers(text, count, separator) {
  const found = text.split(separator).map(Number);
  return text && found.length === count && found.every(Number.isFinite) ? found : null;
}
