"use strict";
const $ = id => document.getElementById(id);
const TILE = 32;                                        // pixels between nodes of the projection
const SCENE_RAMP = ["#ded4ec", "#a58bc9", "#6b4aa3", "#35175f"];
const number = n => n.toLocaleString("en-GB"), percent = share => (100 * share).toFixed(1) + " %";
const day = text => new Date(text + "T00:00Z").toLocaleDateString("en-GB",
  { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const element = (name, properties = {}, children = []) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

/** A shift in 1/100000 as +0.0123 of reflectance, or as the factor that it makes of 1. */
const shiftWords = (plan, value, digits = 4) => value === null ? "–" : plan.balance.kind === "factor" ? "× " + (1 + value / 1e5).toFixed(digits)
  : (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value / 1e5).toFixed(digits);
/** The first scene of a chip; of a shard the one that most of its chips use. */
const firstScene = (plan, cell) => plan.members[plan.first[plan.list[cell]]];

// ---- data -----------------------------------------------------------------------------------------------------------

async function unpack() {
  const packed = Uint8Array.from(atob($("data").textContent.trim()), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const plan = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const kinds = { int32: Int32Array, uint32: Uint32Array, uint16: Uint16Array };
  for (const [name, kind, at, count] of plan.columns) plan[name] = new kinds[kind](bytes, 4 + length + at, count);
  for (const zone of plan.zones) index(plan, zone);
  return plan;
}

/** Give a zone a table of cells by row and column. */
function index(plan, zone) {
  let top = Infinity, left = Infinity, bottom = -Infinity, right = -Infinity;
  for (let i = zone.first; i < zone.stop; i++) {
    top = Math.min(top, plan.row[i]); bottom = Math.max(bottom, plan.row[i]);
    left = Math.min(left, plan.col[i]); right = Math.max(right, plan.col[i]);
  }
  Object.assign(zone, { top, left, rows: bottom - top + 1, cols: right - left + 1 });
  zone.table = new Int32Array(zone.rows * zone.cols).fill(-1);
  for (let i = zone.first; i < zone.stop; i++) zone.table[(plan.row[i] - top) * zone.cols + plan.col[i] - left] = i;
}

// ---- projection -----------------------------------------------------------------------------------------------------

/** Longitude and latitude in degrees to easting and northing of a zone (Karney 2011, WGS 84, third order). */
function utm(epsg, lon, lat) {
  const f = 1 / 298.257223563, n = f / (2 - f), e = 2 * Math.sqrt(n) / (1 + n);
  const radius = 0.9996 * 6378137 / (1 + n) * (1 + n * n / 4 + n ** 4 / 64);
  const alpha = [n / 2 - 2 * n * n / 3 + 5 * n ** 3 / 16, 13 * n * n / 48 - 3 * n ** 3 / 5, 61 * n ** 3 / 240];
  const turn = ((lon - (epsg % 100 * 6 - 183) + 540) % 360 + 360) % 360 - 180;
  const l = Math.max(-80, Math.min(80, turn)) * Math.PI / 180, s = Math.sin(lat * Math.PI / 180);
  const t = Math.sinh(Math.atanh(s) - e * Math.atanh(e * s));
  const xi = Math.atan2(t, Math.cos(l)), eta = Math.atanh(Math.sin(l) / Math.hypot(1, t));
  let north = xi, east = eta;
  alpha.forEach((a, j) => {
    const k = 2 * (j + 1);
    north += a * Math.sin(k * xi) * Math.cosh(k * eta);
    east += a * Math.cos(k * xi) * Math.sinh(k * eta);
  });
  return [500000 + radius * east, (epsg >= 32700 ? 1e7 : 0) + radius * north];
}

/** What the canvas shows: its middle in degrees, and CSS pixels per degree of latitude. */
class MapView {
  constructor(home) { this.home = home; this.squeeze = Math.cos(home.lat * Math.PI / 180); }
  fit(width, height) {
    this.lon = this.home.lon; this.lat = this.home.lat;
    this.least = this.scale = this.home.scale * Math.min(width / this.home.width, height / this.home.height);
  }
  degrees(x, y, width, height) {
    return [this.lon + (x - width / 2) / (this.scale * this.squeeze), this.lat - (y - height / 2) / this.scale];
  }
  pixels(lon, lat, width, height) {
    return [width / 2 + (lon - this.lon) * this.scale * this.squeeze, height / 2 - (lat - this.lat) * this.scale];
  }
  move(dx, dy) {
    this.lon -= dx / (this.scale * this.squeeze);
    this.lat = Math.max(-89, Math.min(89, this.lat + dy / this.scale));
  }
  zoom(factor, x, y, width, height) {
    const [lon, lat] = this.degrees(x, y, width, height);
    this.scale = Math.max(this.least / 4, Math.min(this.scale * factor, 60000));
    this.lon = lon - (x - width / 2) / (this.scale * this.squeeze);
    this.lat = Math.max(-89, Math.min(89, lat + (y - height / 2) / this.scale));
  }
}

/** The cell at every pixel of a picture, −1 for none; where zones overlap, that of the home zone. */
function sample(plan, view, width, height, ratio, cells) {
  cells.fill(-1);
  const nx = Math.ceil(width / TILE) + 1, ny = Math.ceil(height / TILE) + 1;
  const east = new Float64Array(nx * ny), north = new Float64Array(nx * ny);
  for (const zone of plan.zones) {
    const reach = tilesOf(zone, view, width, height, ratio);
    if (!reach) continue;
    for (let j = reach.top; j <= reach.bottom + 1; j++) for (let i = reach.left; i <= reach.right + 1; i++) {
      const [lon, lat] = view.degrees(i * TILE / ratio, j * TILE / ratio, width / ratio, height / ratio);
      [east[j * nx + i], north[j * nx + i]] = utm(zone.epsg, lon, Math.max(-89.9, Math.min(89.9, lat)));
    }
    for (let j = reach.top; j <= reach.bottom; j++) for (let i = reach.left; i <= reach.right; i++)
      sampleTile(plan, zone, view, i, j, nx, east, north, width, height, ratio, cells);
  }
}

function tilesOf(zone, view, width, height, ratio) {
  const [w, s, e, n] = zone.bounds, limit = (v, most) => Math.max(0, Math.min(most, v));
  const [x0, y0] = view.pixels(w, n, width / ratio, height / ratio), [x1, y1] = view.pixels(e, s, width / ratio, height / ratio);
  if (x1 < 0 || y1 < 0 || x0 * ratio > width || y0 * ratio > height) return null;
  const right = Math.ceil(width / TILE) - 1, bottom = Math.ceil(height / TILE) - 1;
  return { left: limit(Math.floor(x0 * ratio / TILE), right), right: limit(Math.floor(x1 * ratio / TILE), right),
           top: limit(Math.floor(y0 * ratio / TILE), bottom), bottom: limit(Math.floor(y1 * ratio / TILE), bottom) };
}

function sampleTile(plan, zone, view, i, j, nx, east, north, width, height, ratio, cells) {
  const a = j * nx + i, b = a + nx, x0 = i * TILE, y0 = j * TILE;
  const { top, left, rows, cols, table, home, origin } = zone, { side, inset } = plan;
  const w = Math.min(TILE, width - x0), h = Math.min(TILE, height - y0);
  for (let y = 0; y < h; y++) {
    const v = (y + .5) / TILE;
    const e0 = east[a] + v * (east[b] - east[a]), e1 = east[a + 1] + v * (east[b + 1] - east[a + 1]);
    const n0 = north[a] + v * (north[b] - north[a]), n1 = north[a + 1] + v * (north[b + 1] - north[a + 1]);
    for (let x = 0, p = (y0 + y) * width + x0; x < w; x++, p++) {
      const u = (x + .5) / TILE;
      const row = Math.floor((origin - (n0 + u * (n1 - n0)) - inset) / side) - top;
      const col = Math.floor((e0 + u * (e1 - e0) - inset) / side) - left;
      if (row < 0 || col < 0 || row >= rows || col >= cols) continue;
      const cell = table[row * cols + col];
      if (cell < 0) continue;
      if (cells[p] < 0) { cells[p] = cell; continue; }
      const [lon, lat] = view.degrees((x0 + x + .5) / ratio, (y0 + y + .5) / ratio, width / ratio, height / ratio);
      const at = ((lon + 180) % 360 + 360) % 360 - 180;
      if (home.some(([we, so, ea, no]) => at >= we && at < ea && lat >= so && lat < no)) cells[p] = cell;
    }
  }
}
