// A cube as its own metadata describes it.

import { Trouble, openStore } from "./store.js";

/** The cube at a URL, with what the page was told about it when it was written. */
export async function openCube(settings, report) {
  const url = new URL(settings.cube.replace(/\/+$/, ""), document.baseURI).href;
  const { attributes, metadata } = await openStore(url, report);
  try {
    return describe(url, attributes, metadata, settings);
  } catch (error) {
    throw error instanceof Trouble ? error : new Trouble(`${url}/zarr.json is damaged (${error.message})`);
  }
}

function describe(url, attributes, metadata, settings) {
  const isSame = settings.publication !== null && settings.publication === attributes["difffusr:publication"];
  const zones = attributes["difffusr:zones"].map(epsg => zoneOf(url, epsg, metadata, settings, isSame));
  const variables = Object.keys(zones[0].variables).filter(name => zones.every(zone => name in zone.variables));
  const periods = new Map(zones.flatMap(zone => [...zone.periods.values()]).map(period => [period.label, period]));
  const flags = flagsOf(zones[0].variables.quality);
  return {
    url,
    name: decodeURIComponent(url.split("/").at(-1)),
    credit: attributes.source ?? "",
    zones,
    bands: settings.bands,
    periods: [...periods.values()].sort((one, other) => (one.start + one.end < other.start + other.end ? -1 : 1)),
    layers: settings.layers
      .filter(layer => variables.includes(layer.variable))
      .map(layer => (layer.variable === "quality" ? { ...layer, labels: labelsOf(flags, settings.quality) } : layer)),
    scales: Object.fromEntries(variables.map(name => [name, zones[0].variables[name].attributes.scale_factor ?? 1])),
    projection: projectionFor(zones),
  };
}

/** Of the map: that of the zone with most data, whose pixels then stay as they are, or where zones lie far apart that of
 *  the Web's maps. */
function projectionFor(zones) {
  const numbers = zones.map(zone => zone.epsg % 100).sort((one, other) => one - other);
  const gaps = numbers.map((number, i) => (i ? number - numbers[i - 1] : number + 60 - numbers.at(-1)));
  const near = zones.every(zone => zone.utm) && 60 - Math.max(...gaps) <= 2;
  if (zones.length > 1 && !near) return ol.proj.get("EPSG:3857");
  const size = ({ extent: [left, bottom, right, top] }) => (right - left) * (top - bottom);
  return zones.reduce((most, zone) => (size(zone) > size(most) ? zone : most)).projection;
}

/** `isSame`: whether its data lie where they lay when the page was written. */
function zoneOf(url, epsg, metadata, settings, isSame) {
  const own = metadata[epsg]?.attributes,
    base = metadata[`${epsg}/0`]?.attributes;
  if (!own?.multiscales?.layout?.length || !base)
    throw new Trouble(`${url}/zarr.json is damaged: zone ${epsg} lacks its levels`);
  const code = own["proj:code"] ?? `difffusr:${epsg}`,
    projection = projectionOf(code, settings.projections[code]);
  if (!projection) throw new Trouble(`this page does not know ${code}; write it again with difffusr view --static`);
  const [left, bottom, right, top] = own["spatial:bbox"];
  const told = settings.zones[epsg] ?? {},
    extent = told.extent ?? [left, bottom, right, top];
  // Lines of longitude and latitude need to know how far they go.
  if (!projection.getExtent() || !projection.getWorldExtent()) limit(projection, [left, bottom, right, top]);
  const pixel = Math.abs(own["spatial:transform"][0]);
  const utm = /^EPSG:32[67]\d\d$/.test(code);
  return {
    epsg,
    name: utm ? `${epsg % 100}${epsg < 32700 ? "N" : "S"}` : code.replace("difffusr:", "crs-"),
    utm,
    projection,
    extent, // of the data, as far as known
    reach: isSame ? extent : [left, bottom, right, top], // nothing lies beyond it
    pixel,
    gsd_m: told.gsd_m ?? pixel * (projection.getMetersPerUnit() ?? 1),
    levels: own.multiscales.layout.map(level => Math.abs(level["spatial:transform"][0])),
    periods: new Map(
      JSON.parse(base["difffusr:periods"]).map(([start, end], step) => [
        labelOf(start, end),
        { label: labelOf(start, end), start, end, step },
      ]),
    ),
    variables: Object.fromEntries(
      Object.entries(metadata)
        .filter(([path, node]) => path.startsWith(`${epsg}/0/`) && node.shape?.length > 2)
        .map(([path, node]) => [path.split("/")[2], node]),
    ),
  };
}

/** Three degrees around an extent are as far as the map goes; a box across 180° has its west greater than its east. */
function limit(projection, [left, bottom, right, top]) {
  const corners = [left, (left + right) / 2, right].flatMap(x =>
    [bottom, top].map(y => ol.proj.toLonLat([x, y], projection)),
  );
  const [middle] = ol.proj.toLonLat([(left + right) / 2, (bottom + top) / 2], projection);
  const lons = corners.map(([lon]) => lon + Math.round((middle - lon) / 360) * 360),
    lats = corners.map(([, lat]) => lat);
  const [west, east] = [Math.min(...lons) - 3, Math.max(...lons) + 3];
  const [south, north] = [Math.max(Math.min(...lats) - 3, -89), Math.min(Math.max(...lats) + 3, 89)];
  projection.setExtent(ol.proj.transformExtent([west, south, east, north], "EPSG:4326", projection, 8));
  const turned = lon => lon - Math.floor((lon + 180) / 360) * 360;
  projection.setWorldExtent([turned(west), south, turned(east), north]);
}

/** OpenLayers knows UTM zones, degrees and the Web's map; other CRS by what proj4 was told. */
function projectionOf(code, definition) {
  if (definition && globalThis.proj4) {
    proj4.defs(code, definition);
    ol.proj.proj4.register(proj4);
  }
  return ol.proj.get(code);
}

/** "2023" for a whole year, "2023-06" for a whole month, else both days. */
function labelOf(start, end) {
  const next = new Date(Date.parse(end) + 24 * 3600e3).toISOString().slice(0, 10);
  const months = 12 * (next.slice(0, 4) - start.slice(0, 4)) + (next.slice(5, 7) - start.slice(5, 7));
  if (start.endsWith("-01") && next.endsWith("-01")) {
    if (months === 1) return start.slice(0, 7);
    if (months === 12 && start.slice(5, 7) === "01") return start.slice(0, 4);
  }
  return `${start}_${end}`;
}

function flagsOf(quality) {
  const { flag_values: values = [], flag_meanings: meanings = "" } = quality?.attributes ?? {};
  return values.map((value, i) => ({ value, meaning: meanings.split(" ")[i] }));
}

function labelsOf(flags, known) {
  return flags.map(({ value, meaning }) => ({
    value,
    day: "",
    ...(known[meaning] ?? { colour: "#888888", name: meaning }),
  }));
}

/** The finest level, in pixels of the zone, that stands for 10 m; null where the zone has none. */
export function tenOf(zone) {
  const wanted = zone.pixel * Math.max(Math.round(10 / zone.gsd_m), 1);
  return wanted > zone.pixel ? (zone.levels.find(pixel => Math.abs(pixel / wanted - 1) < 0.01) ?? null) : null;
}
