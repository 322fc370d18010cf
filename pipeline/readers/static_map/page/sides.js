// The two maps of the stage, one above the other, with one view: people move "after"; "before" follows and is clipped.

import { tenOf } from "./cube.js";
import { bandsOf, styleOf } from "./style.js";

const MOST_TILES = 32; // of a layer on the graphics card: up to 4 MB each
const EQUATOR_M = 40_075_016.685578488;

export class Sides {
  /** elements: { after, before, tools }; view: { zoom, lat, lon } or null; changed is called with true while tiles load,
   *  report with a line about what went wrong. */
  constructor(cube, elements, view, changed, report) {
    this.cube = cube;
    this.elements = elements;
    this.changed = changed;
    this.report = report;
    this.wanted = new Map(); // what each map shows, as text
    this.ranges = new Map(); // and its numbers for the darkest and brightest
    this.busy = new Set(); // maps that do not show it yet
    const finest = Math.min(...cube.zones.map(zone => this.resolutionOf(zone)));
    this.view = new ol.View({
      projection: cube.projection,
      center: [0, 0],
      resolution: finest,
      minResolution: finest / 16,
      maxResolution: finest * 2 ** 16,
      showFullExtent: true,
      enableRotation: false,
      multiWorld: cube.projection.isGlobal(),
    });
    const common = { view: this.view, controls: [], pixelRatio: Math.min(devicePixelRatio, 2) };
    this.after = new ol.Map({
      ...common,
      target: elements.after,
      controls: controls(cube, elements.tools),
      keyboardEventTarget: elements.after,
    });
    this.before = new ol.Map({ ...common, target: elements.before, interactions: [] });
    for (const map of [this.after, this.before]) {
      map.addLayer(lines());
      map.on("loadstart", () => this.look(map, true));
      map.on("rendercomplete", () => this.look(map, false));
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const map of [this.after, this.before]) map.getLayers().setAt(map.getLayers().getLength() - 1, lines());
    });
    if (view) this.go(view);
    else this.fit(cube.zones, 0);
  }

  /** An extent in a zone's coordinates in those of the map. */
  extentOf({ projection }, extent) {
    return projection === this.cube.projection
      ? extent
      : ol.proj.transformExtent(extent, projection, this.cube.projection, 8);
  }

  resolutionOf(zone) {
    if (zone.projection === this.cube.projection) return zone.pixel;
    const [x, y] = ol.proj.transform(middle(zone.extent), zone.projection, this.cube.projection);
    return zone.gsd_m / ol.proj.getPointResolution(this.cube.projection, 1, [x, y], "m");
  }

  /** Where the map is; zoom as the Web's maps count it, with tiles of 512 pixels. */
  get place() {
    const centre = this.view.getCenter(),
      [lon, lat] = ol.proj.toLonLat(centre, this.cube.projection);
    const ground = ol.proj.getPointResolution(this.cube.projection, this.view.getResolution(), centre, "m");
    return { zoom: Math.log2((EQUATOR_M * Math.cos((lat * Math.PI) / 180)) / 512 / ground), lat, lon };
  }

  go({ zoom, lat, lon }) {
    const centre = ol.proj.fromLonLat([lon, lat], this.cube.projection);
    const ground = (EQUATOR_M * Math.cos((lat * Math.PI) / 180)) / 512 / 2 ** zoom;
    this.view.setCenter(centre);
    this.view.setResolution(ground / ol.proj.getPointResolution(this.cube.projection, 1, centre, "m"));
  }

  /** Move so that the data of these zones fit. */
  fit(zones, duration = 300) {
    const extents = zones.map(zone => this.extentOf(zone, zone.extent));
    const size = [this.elements.after.clientWidth, this.elements.after.clientHeight];
    this.view.fit(extents.reduce(ol.extent.extend, ol.extent.createEmpty()), {
      size,
      padding: [24, 24, 24, 24],
      duration,
    });
  }

  /** What either side shows: { layer, period, low, high, ten }; null for no "before". */
  show(after, before) {
    this.elements.before.hidden = before === null;
    this.before.updateSize();
    this.draw(this.after, after);
    if (before) this.draw(this.before, before);
    else this.busy.delete(this.before);
  }

  /** New layers above the old ones, which stay until the new ones are drawn. Another range needs no new ones. */
  async draw(map, { layer, period, low, high, ten }) {
    const wanted = [layer.name, period, ten].join();
    const layers = map.getLayers();
    this.ranges.set(map, [low, high]);
    if (this.wanted.get(map) === wanted) {
      for (const shown of layers.getArray()) shown.get("of") === wanted && shown.updateStyleVariables({ low, high });
      return;
    }
    this.wanted.set(map, wanted);
    this.look(map, true);
    const zones = this.cube.zones.filter(zone => zone.periods.has(period));
    const opened = zones.map(zone => sourceOf(this.cube, zone, layer, period, ten));
    const sources = await Promise.all(opened).catch(error => this.report(error.message) ?? []);
    if (this.wanted.get(map) !== wanted) return;
    const older = layers.getArray().filter(shown => shown.get("of"));
    for (const [i, source] of sources.entries()) {
      const style = styleOf(layer, this.cube.scales[layer.variable], ...this.ranges.get(map));
      const extent = this.extentOf(zones[i], zones[i].reach);
      const drawn = new ol.layer.WebGLTile({
        source,
        style,
        extent,
        cacheSize: MOST_TILES,
        properties: { of: wanted },
      });
      layers.insertAt(layers.getLength() - 1, drawn);
    }
    map.once("rendercomplete", () => {
      for (const shown of older) map.removeLayer(shown);
      for (const shown of older) shown.dispose();
    });
    map.render();
  }

  /** Show "before" left of `at`, a share of the width. */
  cut(at) {
    this.elements.before.style.clipPath = `inset(0 ${((1 - at) * 100).toFixed(3)}% 0 0)`;
  }

  look(map, busy) {
    if (busy) this.busy.add(map);
    else this.busy.delete(map);
    this.changed(this.busy.size > 0);
  }
}

/** Reads a zone's variable at one step of time, of "ten" from the level of 10 m upwards. */
async function sourceOf(cube, zone, layer, period, ten) {
  const dimensions = { time: zone.periods.get(period).step };
  if (layer.bands.length)
    dimensions.band = bandsOf(layer).map(band => cube.bands.findIndex(({ name }) => name === band));
  const source = new ol.source.GeoZarr({
    url: `${cube.url}/${zone.epsg}`,
    variable: layer.variable,
    dimensions,
    projection: zone.projection,
    resample: "nearest",
    transition: 0,
  });
  source.getInterpolate = () => false; // pixels are squares: neither labels nor edges are mixed
  await source.ready();
  const finest = ten ? tenOf(zone) : null;
  if (finest) source.tileGrid = upwards(source.tileGrid, finest);
  if (zone.projection !== cube.projection)
    source.setTileGridForProjection(cube.projection, gridAround(cube, zone, source.tileGrid));
  return source;
}

/** Tiles that a zone's pixels are brought to on a map in another projection: large ones, as each takes its time. */
function gridAround(cube, zone, own) {
  const extent = ol.proj.transformExtent(zone.reach, zone.projection, cube.projection, 8);
  const scale = ol.proj.getPointResolution(cube.projection, 1, ol.extent.getCenter(extent), "m");
  const ground = zone.gsd_m / zone.pixel / scale;
  return new ol.tilegrid.TileGrid({
    extent,
    tileSize: 512,
    resolutions: own.getResolutions().map(pixel => pixel * ground),
  });
}

/** A grid of tiles without the levels finer than a pixel. */
function upwards(grid, pixel) {
  const kept = grid
    .getResolutions()
    .map((resolution, z) => ({ resolution, z }))
    .filter(({ resolution }) => resolution > pixel * 0.99);
  return new ol.tilegrid.WMTS({
    extent: grid.getExtent(),
    resolutions: kept.map(({ resolution }) => resolution),
    origins: kept.map(({ z }) => grid.getOrigin(z)),
    tileSizes: kept.map(({ z }) => grid.getTileSize(z)),
    matrixIds: kept.map(({ z }) => grid.getMatrixId(z)),
  });
}

/** Buttons, scale and credit, above both maps. */
function controls(cube, target) {
  const words = document.createElement("span");
  words.textContent = cube.credit;
  return [
    new ol.control.Zoom({ target, zoomOutLabel: "−" }),
    new ol.control.ScaleLine({ target, minWidth: 80 }),
    new ol.control.Attribution({
      target,
      collapsible: true,
      collapsed: innerWidth < 1100,
      attributions: words.innerHTML,
    }),
  ];
}

/** Lines of longitude and latitude. */
function lines() {
  const colours = getComputedStyle(document.documentElement),
    of = name => colours.getPropertyValue(name).trim();
  const label = {
    font: "12px system-ui, sans-serif",
    fill: new ol.style.Fill({ color: of("--ink") }),
    stroke: new ol.style.Stroke({ color: of("--panel"), width: 4 }),
  };
  return new ol.layer.Graticule({
    strokeStyle: new ol.style.Stroke({ color: `${of("--lines")}47`, width: 1 }),
    showLabels: true,
    wrapX: false,
    targetSize: 150,
    lonLabelPosition: 1,
    latLabelPosition: 0,
    lonLabelStyle: new ol.style.Text({ ...label, textBaseline: "top", offsetY: 4 }),
    latLabelStyle: new ol.style.Text({ ...label, textAlign: "left", offsetX: 6 }),
  });
}

const middle = ([left, bottom, right, top]) => [(left + right) / 2, (bottom + top) / 2];
