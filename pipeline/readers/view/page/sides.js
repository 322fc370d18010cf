// The two maps of the stage, one above the other: people move "after"; "before" follows and is clipped.

import * as maplibregl from "../maplibre/maplibre-gl.mjs";
import { element } from "./dom.js";
import { graticule } from "./graticule.js";

const SHARP = window.devicePixelRatio >= 1.5; // a tile of 512 px then covers 256 px of the page
const BASEMAP_MS = 10_000; // after which a basemap of which nothing has come is given up
const EMPTY = { type: "FeatureCollection", features: [] };

export class Sides {
  /** elements: { after, before, degrees }; changed is called with true while tiles are loading. */
  constructor(cube, elements, view, credit, changed, basemap) {
    this.cube = cube;
    this.basemap = basemap;
    this.troubled = () => {}; // called with what cannot be drawn, and whether it is of "before"
    this.lost = () => {}; // called where the basemap does not answer
    this.answers = false; // whether a tile of the basemap has come
    this.elements = elements;
    this.urls = new Map();
    this.drawing = new Set(); // maps whose newest tiles are not all loaded
    this.changed = changed;
    this.count = 0;
    const usual = {
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      maxPitch: 0,
      maxZoom: 20,
      fadeDuration: 0,
      ...view,
    };
    const words = { "Map.Title": "Map; Enter shows the spectrum at the centre" };
    this.after = new maplibregl.Map({ ...usual, container: elements.after, style: style(), locale: words });
    this.before = new maplibregl.Map({ ...usual, container: elements.before, style: style(), interactive: false });
    this.after.touchZoomRotate.disableRotation();
    this.after.keyboard.disableRotation();
    this.after.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
    this.after.addControl(new maplibregl.ScaleControl({ unit: "metric" }), "bottom-left");
    this.after.addControl(
      new maplibregl.AttributionControl({ compact: true, customAttribution: credit }),
      "bottom-right",
    );
    const credits = elements.after.querySelector(".maplibregl-ctrl-attrib");
    if (elements.after.clientWidth < 760) {
      credits.classList.remove("maplibregl-compact-show");
      credits.removeAttribute("open");
    }
    this.before.getCanvas().tabIndex = -1;
    this.after.on("move", () => this.follow());
    this.after.on("move", () => this.drawDegrees());
    for (const map of [this.after, this.before]) {
      map.on("dataloading", () => changed(true));
      map.on("idle", () => changed(!this.settled));
      map.on("load", () => this.drawDegrees());
      map.on("error", event => this.failed(map, event));
    }
    this.zoomsBefore = cube.zooms;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const recolour = () => [this.after, this.before].forEach(map => ready(map, () => paint(map)));
    dark.addEventListener("change", recolour);
    recolour();
  }

  get settled() {
    const shown = this.elements.before.hidden ? [this.after] : [this.after, this.before];
    return shown.every(map => !this.drawing.has(map) && map.areTilesLoaded());
  }

  get view() {
    const { lng, lat } = this.after.getCenter();
    return { zoom: this.after.getZoom(), lat, lon: lng };
  }

  /** The view in degrees: west, south, east, north. */
  get bounds() {
    return this.after.getBounds().toArray().flat();
  }

  /** Of the part left of `at`, a share of the width; a tenth of it at least. */
  boundsLeft(at) {
    const [west, south, east, north] = this.bounds;
    return [west, south, west + (east - west) * Math.max(at, 0.1), north];
  }

  /** Whether the view is too wide for tiles. */
  get tooWide() {
    return this.zoom < this.cube.zooms[0];
  }

  /** Whether it is for those of "before". */
  get beforeTooWide() {
    return !this.elements.before.hidden && this.zoom < this.zoomsBefore[0];
  }

  /** Of the tiles in view. */
  get zoom() {
    return Math.round(this.after.getZoom() + (SHARP ? 1 : 0));
  }

  follow() {
    const { zoom, lat, lon } = this.view;
    this.before.jumpTo({ center: [lon, lat], zoom });
  }

  /** Draw tiles from these URLs; null for no "before"; zooms: first and last that "before" has. */
  show(after, before, zooms = this.cube.zooms) {
    this.zoomsBefore = zooms;
    const was = this.elements.before.hidden;
    this.elements.before.hidden = before === null;
    if (was && before !== null) {
      this.before.resize();
      this.follow();
    }
    this.draw(this.after, after);
    if (before !== null) this.draw(this.before, before, zooms);
  }

  /** Show the basemap, if there is one, or hide it. */
  below(wanted) {
    if (this.basemap === null) return;
    for (const map of [this.after, this.before])
      ready(map, () => {
        if (!wanted && map.getLayer("basemap")) {
          map.removeLayer("basemap");
          map.removeSource("basemap");
        }
        if (!wanted || map.getLayer("basemap")) return;
        const attribution = element("span", { textContent: this.basemap.credit }).innerHTML;
        map.addSource("basemap", { type: "raster", tiles: [this.basemap.url], tileSize: 256, maxzoom: 19, attribution });
        const above = map.getStyle().layers[1].id; // all but the ground
        map.addLayer({ id: "basemap", type: "raster", source: "basemap", paint: { "raster-fade-duration": 0 } }, above);
        this.expect(map);
      });
  }

  /** Go on without a basemap of which nothing has come after a while: the map would load for ever. */
  expect(map) {
    const arrived = event => {
      if (event.sourceId !== "basemap" || !event.tile || event.tile.state !== "loaded") return;
      this.answers = true;
      map.off("sourcedata", arrived);
    };
    map.on("sourcedata", arrived);
    setTimeout(() => {
      map.off("sourcedata", arrived);
      if (!this.answers && map.getLayer("basemap")) this.lost();
    }, BASEMAP_MS);
  }

  /** What could not be drawn is said instead of left in the console. */
  async failed(map, { error, sourceId }) {
    if (sourceId === "basemap") {
      if (!this.answers && map.getLayer("basemap")) this.lost();
      return;
    }
    const text = error?.body ? (await error.body.text()).trim().split("\n")[0] : "";
    this.troubled(text || "The server no longer answers; start difffusr view again", map === this.before);
  }

  /** Show "before" left of `at`, a share of the width. */
  cut(at) {
    this.elements.before.style.clipPath = `inset(0 ${((1 - at) * 100).toFixed(3)}% 0 0)`;
  }

  /** Tiles below the lines; the previous ones stay until the new ones are loaded. */
  draw(map, url, zooms = this.cube.zooms) {
    if (this.urls.get(map) === url) return;
    this.urls.set(map, url);
    this.drawing.add(map);
    this.changed(true);
    ready(map, () => {
      if (this.urls.get(map) !== url) return;
      const id = `tiles-${++this.count}`,
        [minzoom, maxzoom] = zooms;
      const older = map
        .getStyle()
        .layers.map(layer => layer.id)
        .filter(name => name.startsWith("tiles-"));
      map.addSource(id, {
        type: "raster",
        tiles: [url],
        tileSize: SHARP ? 256 : 512,
        minzoom,
        maxzoom,
        bounds: this.reach,
      });
      map.addLayer(
        { id, type: "raster", source: id, paint: { "raster-fade-duration": 0, "raster-resampling": "nearest" } },
        "graticule",
      );
      map.once("idle", () => {
        for (const name of older.filter(name => map.getLayer(name))) {
          map.removeLayer(name);
          map.removeSource(name);
        }
        if (this.urls.get(map) === url) this.drawing.delete(map);
        this.changed(!this.settled);
      });
    });
  }

  get reach() {
    const extents = this.cube.zones.map(zone => zone.extent);
    const [west, south] = [0, 1].map(edge => Math.min(...extents.map(extent => extent[edge])));
    const [east, north] = [2, 3].map(edge => Math.max(...extents.map(extent => extent[edge])));
    return east > 180 ? [-180, south, 180, north] : [west, south, east, north];
  }

  drawDegrees() {
    const { lines, labels } = graticule(this.after);
    for (const map of [this.after, this.before]) map.getSource("graticule")?.setData(lines);
    this.elements.degrees.replaceChildren(
      ...labels.map(({ edge, at, text }) => {
        const label = Object.assign(document.createElement("span"), { textContent: text, className: edge });
        label.style[edge === "top" ? "left" : "top"] = `${at}px`;
        return label;
      }),
    );
  }

  /** Outline a pixel and the 10 m pixel around it; null for none. */
  mark(place) {
    const features =
      place === null
        ? []
        : [
            {
              type: "Feature",
              properties: { kind: "ten" },
              geometry: { type: "LineString", coordinates: place.outline_10m },
            },
            {
              type: "Feature",
              properties: { kind: "own" },
              geometry: { type: "LineString", coordinates: place.outline },
            },
            {
              type: "Feature",
              properties: { kind: "point" },
              geometry: { type: "Point", coordinates: middle(place.outline) },
            },
          ];
    for (const map of [this.after, this.before]) {
      ready(map, () => map.getSource("mark").setData({ type: "FeatureCollection", features }));
    }
  }

  outlines() {
    const features = this.cube.zones.map(({ extent: [west, south, east, north] }) => ({
      type: "Feature",
      properties: {},
      geometry: {
        type: "LineString",
        coordinates: [
          [west, south],
          [east, south],
          [east, north],
          [west, north],
          [west, south],
        ],
      },
    }));
    ready(this.after, () => this.after.getSource("extent").setData({ type: "FeatureCollection", features }));
  }

  /** Move a marked pixel out from under a DOMRect that covers part of the stage; `up` or to the left. */
  uncover(place, rect, up) {
    const stage = this.elements.after.getBoundingClientRect(),
      { x, y } = this.after.project(middle(place.outline));
    const [left, top] = [stage.left + x, stage.top + y],
      room = 40;
    const covered =
      left > rect.left - room && left < rect.right + room && top > rect.top - room && top < rect.bottom + room;
    if (covered)
      this.after.panBy(up ? [0, top - (stage.top + rect.top) / 2] : [left - (stage.left + rect.left) / 2, 0]);
  }

  /** Move so that an extent fits. */
  fit(extent, animate = true) {
    this.after.fitBounds(extent, { padding: 24, maxZoom: 17, animate });
  }
}

function style() {
  return {
    version: 8,
    sources: Object.fromEntries(["graticule", "extent", "mark"].map(id => [id, { type: "geojson", data: EMPTY }])),
    layers: [
      { id: "ground", type: "background" },
      { id: "graticule", type: "line", source: "graticule", paint: { "line-width": 1, "line-opacity": 0.28 } },
      {
        id: "extent",
        type: "line",
        source: "extent",
        maxzoom: 12,
        paint: { "line-width": 1.5, "line-dasharray": [4, 3] },
      },
      {
        id: "ten",
        type: "line",
        source: "mark",
        minzoom: 15,
        filter: ["==", ["get", "kind"], "ten"],
        paint: { "line-color": "#ffffff", "line-width": 1.5, "line-dasharray": [2, 2] },
      },
      {
        id: "own",
        type: "line",
        source: "mark",
        minzoom: 15,
        filter: ["==", ["get", "kind"], "own"],
        paint: { "line-color": "#ff2f6d", "line-width": 2 },
      },
      {
        id: "point",
        type: "circle",
        source: "mark",
        maxzoom: 17.5,
        filter: ["==", ["get", "kind"], "point"],
        paint: {
          "circle-radius": 7,
          "circle-color": "#ff2f6d",
          "circle-opacity": 0.25,
          "circle-stroke-color": "#ff2f6d",
          "circle-stroke-width": 2.5,
        },
      },
    ],
  };
}

/** Colours of the page, light or dark. */
function paint(map) {
  const colours = getComputedStyle(document.documentElement);
  map.setPaintProperty("ground", "background-color", colours.getPropertyValue("--ground").trim());
  map.setPaintProperty("graticule", "line-color", colours.getPropertyValue("--lines").trim());
  map.setPaintProperty("extent", "line-color", colours.getPropertyValue("--accent").trim());
}

function ready(map, act) {
  if (map.isStyleLoaded() || map.getLayer("ground")) act();
  else map.once("load", act);
}

function middle(ring) {
  return [0, 1].map(axis => (ring[0][axis] + ring[2][axis]) / 2);
}
