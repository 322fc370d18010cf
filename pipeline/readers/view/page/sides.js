// The two maps of the stage, one above the other: people move "after"; "before" follows and is clipped.

import * as maplibregl from "../maplibre/maplibre-gl.mjs";
import { graticule } from "./graticule.js";

const SHARP = window.devicePixelRatio >= 1.5; // a tile of 512 px then covers 256 px of the page
const EMPTY = { type: "FeatureCollection", features: [] };

export class Sides {
  /** elements: { after, before, degrees }; changed is called with true while tiles are loading. */
  constructor(cube, elements, view, credit, changed) {
    this.cube = cube;
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
    }
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

  /** Whether the view is too wide for tiles. */
  get tooWide() {
    return Math.round(this.after.getZoom() + (SHARP ? 1 : 0)) < this.cube.zooms[0];
  }

  follow() {
    const { zoom, lat, lon } = this.view;
    this.before.jumpTo({ center: [lon, lat], zoom });
  }

  /** Draw tiles from these URLs; null for no "before". */
  show(after, before) {
    const was = this.elements.before.hidden;
    this.elements.before.hidden = before === null;
    if (was && before !== null) {
      this.before.resize();
      this.follow();
    }
    this.draw(this.after, after);
    if (before !== null) this.draw(this.before, before);
  }

  /** Show "before" left of `at`, a share of the width. */
  cut(at) {
    this.elements.before.style.clipPath = `inset(0 ${((1 - at) * 100).toFixed(3)}% 0 0)`;
  }

  /** Tiles below the lines; the previous ones stay until the new ones are loaded. */
  draw(map, url) {
    if (this.urls.get(map) === url) return;
    this.urls.set(map, url);
    this.drawing.add(map);
    this.changed(true);
    ready(map, () => {
      if (this.urls.get(map) !== url) return;
      const id = `tiles-${++this.count}`,
        [minzoom, maxzoom] = this.cube.zooms;
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
