// The panel that tells all that the cube says of one pixel.

import { axis, lineChart } from "./chart.js";

const $ = id => document.getElementById(id);
const WORDS = { filled: "filled from another scene", no_data: "no data", interpolated: "interpolated, not super-resolved",
  interpolated_cloud: "interpolated cloud" };

/** Fill the panel. place: what the server says; state: { layer, period }; names: periods' names by label. */
export function tell(cube, place, state, names) {
  const now = place.periods.find(period => period.label === state.period) ?? place.periods[0];
  $("spectrum-title").textContent = place.periods.length > 1 || names.size > 1 ? `Spectrum, ${names.get(now.label)}` : "Spectrum";
  const [lon, lat] = [0, 1].map(side => (place.outline[0][side] + place.outline[2][side]) / 2);
  $("place").textContent = `${lat.toFixed(6)}, ${lon.toFixed(6)}\n`
    + `EPSG:${place.epsg}: ${place.easting.toFixed(2)} E, ${place.northing.toFixed(2)} N`;
  drawSpectrum(cube, now);
  drawSeries(cube, place, state, names);
  listFacts(cube, now);
  listValues(cube, now);
  return sentence(cube, now, lat, lon);
}

function drawSpectrum(cube, now) {
  const points = values => cube.bands.map((band, i) => [band.nm, values[i], `${band.name}, ${band.nm} nm: ${said(values[i])}`]);
  const lines = [
    { name: "averaged to 10 m", colour: "second", dashed: true, points: points(now.averaged) },
    { name: "2.5 m", colour: "first", points: points(now.reflectance) },
  ];
  const x = { from: 400, to: 2250, ticks: [500, 1000, 1500, 2000].map(nm => [nm, String(nm)]), title: "nm" };
  const y = axis([...now.reflectance, ...now.averaged], 0, 0.1);
  $("chart").replaceChildren(lineChart(lines, x, y, "Reflectance over wavelength; the table below has the numbers"));
  $("chart-names").replaceChildren(...lines.reverse().map(key));
}

/** What the layer shows, period by period: an index, or the bands of a composite. */
function drawSeries(cube, place, state, names) {
  $("series").hidden = place.periods.length < 2;
  if (place.periods.length < 2) return;
  const layer = cube.layers.find(one => one.name === state.layer), asked = layer.index ? layer : null;
  const index = asked ?? cube.layers.find(one => one.name === "ndvi");
  const lines = layer.kind === "colour"
    ? [...new Set(layer.bands)].map((band, i, bands) => ({ name: band,
      colour: bands.length === 3 ? ["red", "green", "blue"][i] : "first",
      of: period => period.reflectance[cube.bands.findIndex(one => one.name === band)] }))
    : [{ name: index.title, colour: "first", of: period => period.indices[index.name] }];
  for (const line of lines) {
    line.points = place.periods.map((period, i) => [i, line.of(period), `${names.get(period.label)}: ${said(line.of(period))}`]);
  }
  const last = place.periods.length - 1, every = Math.ceil((last + 1) / 4);
  const ticks = place.periods.map((period, i) => [i, short(cube, period.label)]).filter((_, i) => i % every === 0);
  const y = axis(lines.flatMap(line => line.points.map(point => point[1])), 0, 0.1);
  $("series-chart").replaceChildren(lineChart(lines, { from: -0.3, to: last + 0.3, ticks }, y, "The same pixel in every period"));
  $("series-names").replaceChildren(...lines.map(key));
}

function listFacts(cube, now) {
  const facts = [["Quality", WORDS[now.quality.meaning] ?? now.quality.meaning.replaceAll("_", " ")]];
  if (now.scene) facts.push(["Scene", now.scene.id ?? `number ${now.scene.number}`]);
  if (now.scene?.datetime) facts.push(["Taken", `${now.scene.datetime.slice(0, 16).replace("T", " ")} UTC`]);
  for (const layer of cube.layers.filter(one => one.index)) {
    const value = now.indices[layer.name];
    if (value !== null) facts.push([layer.title.split(",")[0], value.toFixed(3).replace("-", "−")]);
  }
  $("pixel").replaceChildren(...facts.flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
}

function listValues(cube, now) {
  const columns = ["Band", "nm", "2.5 m", "10 m mean", ...(now.std ? ["± std"] : [])];
  const head = made("tr");
  head.append(...columns.map(name => Object.assign(made("th", name), { scope: "col" })));
  $("values").tHead.replaceChildren(head);
  $("values").tBodies[0].replaceChildren(...cube.bands.map((band, i) => {
    const row = made("tr"), numbers = [now.reflectance[i], now.averaged[i], ...(now.std ? [now.std[i]] : [])];
    row.append(Object.assign(made("th", band.name), { scope: "row" }), made("td", Math.round(band.nm)));
    row.append(...numbers.map(value => made("td", said(value))));
    return row;
  }));
}

function sentence(cube, now, lat, lon) {
  const ndvi = now.indices.ndvi;
  return `Spectrum at ${lat.toFixed(5)}, ${lon.toFixed(5)}: ${WORDS[now.quality.meaning] ?? now.quality.meaning}`
    + (ndvi === null ? "" : `, NDVI ${ndvi.toFixed(2)}`);
}

function short(cube, label) {
  const start = cube.periods.find(period => period.label === label).start;
  return `${start.slice(5, 7)}/${start.slice(2, 4)}`;
}

function key({ name, colour, dashed }) {
  const item = made("span", name);
  item.className = `key ${colour}${dashed ? " dashed" : ""}`;
  return item;
}

function said(value) { return value === null || value === undefined ? "–" : value.toFixed(4).replace("-", "−"); }

function made(name, text) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  return element;
}
