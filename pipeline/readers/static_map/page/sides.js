// The map with its two sides: layers of "before" are drawn left of the divider, those of "after" right of it.

import { tenOf } from "./cube.js";
import { bandsOf, styleOf } from "./style.js";

const MOST_TILES = 32; // of a layer on the graphics card: up to 4 MB each
const EQUATOR_M = 40_075_016.685578488;

export class Sides {
  /** elements: { stage, tools }; view: { zoom, lat, lon } or null; changed is called with true while tiles load, report
   *  with a line about what went wrong. */
  constructor(cube, elements, view, changed, report) {
    this.cube = cube;
    this.elements = elements;
    this.changed = changed;
    this.report = report;
    this.wanted = new Map(); // what each side shows, as text
    this.ranges = new Map(); // and its numbers for the darkest and brightest
    this.opening = 0; // sides whose sources are being opened
    this.at = 0; // the divider's place, a share of the width
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
    this.map = new ol.Map({
      view: this.view,
      target: elements.stage,
      controls: controls(cube, elements.tools),
      keyboardEventTarget: elements.stage,
      pixelRatio: Math.min(devicePixelRatio, 2),
      layers: [
        outlines(
          cube.zones.map(zone => this.extentOf(zone, zone.extent)),
          32 * finest,
        ),
        lines(),
      ],
    });
    this.map.on("loadstart", () => this.changed(true));
    this.map.on("rendercomplete", () => this.changed(this.opening > 0));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      const layers = this.map.getLayers();
      layers.setAt(layers.getLength() - 1, lines());
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
    const size = [this.elements.stage.clientWidth, this.elements.stage.clientHeight];
    this.view.fit(extents.reduce(ol.extent.extend, ol.extent.createEmpty()), {
      size,
      padding: [24, 24, 24, 24],
      duration,
    });
  }

  /** What either side shows: { layer, period, low, high, ten }; null for no "before". */
  show(after, before) {
    this.draw("after", after);
    this.draw("before", before);
  }

  /** New layers above the old ones, which stay until the new ones are drawn. Another range needs no new ones. */
  async draw(side, shown) {
    const wanted = shown && [shown.layer.name, shown.period, shown.ten].join();
    const { low, high } = shown ?? {};
    this.ranges.set(side, { low, high });
    if (this.wanted.get(side) === wanted) {
      for (const drawn of this.layersOf(side))
        if (drawn.get("of") === wanted) drawn.updateStyleVariables({ low, high });
      return;
    }
    this.wanted.set(side, wanted);
    this.changed(true);
    const zones = shown ? this.cube.zones.filter(zone => zone.periods.has(shown.period)) : [];
    this.opening++;
    const opened = zones.map(zone => sourceOf(this.cube, zone, shown.layer, shown.period, shown.ten));
    const sources = await Promise.all(opened).catch(error => this.report(error.message) ?? []);
    this.opening--;
    if (this.wanted.get(side) === wanted) this.exchange(side, wanted, shown?.layer, zones, sources);
    this.map.render();
  }

  exchange(side, wanted, layer, zones, sources) {
    const older = this.layersOf(side),
      layers = this.map.getLayers();
    for (const [i, source] of sources.entries()) {
      const { low, high } = this.ranges.get(side);
      const drawn = new ol.layer.WebGLTile({
        source,
        style: styleOf(layer, this.cube.scales[layer.variable], low, high),
        extent: this.extentOf(zones[i], zones[i].reach),
        cacheSize: MOST_TILES,
        properties: { side, of: wanted },
      });
      drawn.on("prerender", event => this.limit(event, side));
      drawn.on("postrender", ({ context }) => context.disable(context.SCISSOR_TEST));
      layers.insertAt(layers.getLength() - 1, drawn);
    }
    this.map.once("rendercomplete", () => {
      for (const drawn of older) this.map.removeLayer(drawn);
      for (const drawn of older) drawn.dispose();
    });
  }

  layersOf(side) {
    return this.map
      .getLayers()
      .getArray()
      .filter(layer => layer.get("side") === side);
  }

  /** Draw on one side of the divider alone. */
  limit(event, side) {
    const [width, height] = this.map.getSize(),
      divider = this.wanted.get("before") ? this.at * width : 0;
    const [from, to] = side === "before" ? [0, divider] : [divider, width];
    const [left, bottom] = ol.render.getRenderPixel(event, [from, height]),
      [right, top] = ol.render.getRenderPixel(event, [to, 0]);
    const gl = event.context,
      corner = Math.round(left);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(corner, Math.round(bottom), Math.round(right) - corner, Math.round(top - bottom));
  }

  /** Put the divider at `at`, a share of the width. */
  cut(at) {
    this.at = at;
    this.map.render();
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

/** Where data are, for who looks from afar, with pixels of the map larger than `from`: a box, or what is seen of it. */
function outlines(extents, from) {
  const color = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  const box = new ol.style.Style({ stroke: new ol.style.Stroke({ color, width: 2 }) });
  const dot = new ol.style.Style({
    image: new ol.style.Circle({ radius: 4, fill: new ol.style.Fill({ color }) }),
    geometry: feature => new ol.geom.Point(ol.extent.getCenter(feature.getGeometry().getExtent())),
  });
  const features = extents.map(extent => new ol.Feature(ol.geom.Polygon.fromExtent(extent)));
  return new ol.layer.Vector({
    source: new ol.source.Vector({ features }),
    minResolution: from,
    style: (feature, pixel) => (ol.extent.getWidth(feature.getGeometry().getExtent()) > 12 * pixel ? box : dot),
  });
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
