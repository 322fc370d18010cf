// The panel about one pixel.

import { axis, lineChart } from "./chart.js";
import { $, element, said } from "./dom.js";

/** Fill the panel. place: the server's answer; state: { layer, period }; names: periods' names by label;
 * compare is called with the number of the scene to show beside the cube. */
export function showSpectrum(cube, place, state, names, compare) {
  const now = place.periods.find(period => period.label === state.period) ?? place.periods[0];
  $("spectrum-title").textContent =
    place.periods.length > 1 || names.size > 1 ? `Spectrum, ${names.get(now.label)}` : "Spectrum";
  const [lon, lat] = [0, 1].map(side => (place.outline[0][side] + place.outline[2][side]) / 2);
  $("place").textContent =
    `${lat.toFixed(6)}, ${lon.toFixed(6)}\n` +
    `${place.crs}: ${place.easting.toFixed(place.degrees ? 6 : 2)} E, ${place.northing.toFixed(place.degrees ? 6 : 2)} N`;
  drawSpectrum(cube, now);
  drawSeries(cube, place, state, names);
  listFacts(cube, now, compare);
  listValues(cube, now);
  return sentence(cube, now, lat, lon);
}

function drawSpectrum(cube, now) {
  const points = values =>
    cube.bands.map((band, i) => [band.nm, values[i], `${band.name}, ${band.nm} nm: ${said(values[i], 4)}`]);
  const lines = [
    { name: `averaged to ${cube.sides[1]}`, colour: "second", dashed: true, points: points(now.averaged) },
    { name: cube.sides[0], colour: "first", points: points(now.reflectance) },
  ];
  const x = { from: 400, to: 2250, ticks: [500, 1000, 1500, 2000].map(nm => [nm, String(nm)]), title: "nm" };
  const y = axis([...now.reflectance, ...now.averaged], 0, 0.1);
  $("chart").replaceChildren(lineChart(lines, x, y, "Reflectance over wavelength; the numbers are in the table below"));
  $("chart-names").replaceChildren(...lines.reverse().map(key));
}

/** The layer over all periods: an index, or the bands of a composite. */
function drawSeries(cube, place, state, names) {
  $("series").hidden = place.periods.length < 2;
  if (place.periods.length < 2) return;
  const layer = cube.layers.find(one => one.name === state.layer);
  const index = layer.index ? layer : cube.layers.find(one => one.name === "ndvi");
  const lines =
    layer.kind === "colour"
      ? [...new Set(layer.bands)].map((band, i, bands) => ({
          name: band,
          colour: bands.length === 3 ? ["red", "green", "blue"][i] : "first",
          of: period => period.reflectance[cube.bands.findIndex(one => one.name === band)],
        }))
      : [{ name: index.title, colour: "first", of: period => period.indices[index.name] }];
  const days = place.periods.map(period => middle(cube, period.label));
  for (const line of lines) {
    line.points = place.periods.map((period, i) => [
      days[i],
      line.of(period),
      `${names.get(period.label)}: ${said(line.of(period), 4)}`,
    ]);
  }
  const room = (days.at(-1) - days[0]) * 0.05,
    every = Math.ceil(days.length / 4);
  const ticks = place.periods
    .map((period, i) => [days[i], short(cube, period.label)])
    .filter((_, i) => i % every === 0);
  const y = axis(
    lines.flatMap(line => line.points.map(point => point[1])),
    0,
    0.1,
  );
  $("series-chart").replaceChildren(
    lineChart(lines, { from: days[0] - room, to: days.at(-1) + room, ticks }, y, "The same pixel in every period"),
  );
  $("series-names").replaceChildren(...lines.map(key));
}

function listFacts(cube, now, compare) {
  const facts = [["Quality", quality(cube, now)]];
  if (now.scene) facts.push(["Scene", now.scene.id ?? `number ${now.scene.number}`]);
  if (now.scene && cube.scenes.possible) facts.push(["", button("Compare with this scene", now.scene.number, compare)]);
  if (now.scene?.datetime) facts.push(["Taken", `${now.scene.datetime.slice(0, 16).replace("T", " ")} UTC`]);
  if (now.looks !== undefined) facts.push(["Observations", now.looks]);
  if (now.scene?.shift) {
    const shifts = Object.entries(now.scene.shift).map(([band, by]) => `${band} ${by > 0 ? "+" : ""}${said(by, 4)}`);
    facts.push(["Balanced by", shifts.join(", ")]);
  }
  for (const layer of cube.layers.filter(one => one.index)) {
    const value = now.indices[layer.name];
    if (value !== null) facts.push([layer.title.split(",")[0], said(value, 3)]);
  }
  $("pixel").replaceChildren(...facts.flatMap(([name, value]) => [made("dt", name), described(value)]));
}

function described(value) {
  return value instanceof Node ? element("dd", {}, [value]) : made("dd", value);
}

function button(text, number, compare) {
  const pressed = element("button", { type: "button", textContent: text });
  pressed.addEventListener("click", () => compare(number));
  return pressed;
}

function listValues(cube, now) {
  const columns = ["Band", "nm", cube.sides[0], `${cube.sides[1]} mean`, ...(now.std ? ["± std"] : [])];
  const head = made("tr");
  head.append(...columns.map(name => Object.assign(made("th", name), { scope: "col" })));
  $("values").tHead.replaceChildren(head);
  $("values").tBodies[0].replaceChildren(
    ...cube.bands.map((band, i) => {
      const row = made("tr"),
        numbers = [now.reflectance[i], now.averaged[i], ...(now.std ? [now.std[i]] : [])];
      row.append(Object.assign(made("th", band.name), { scope: "row" }), made("td", Math.round(band.nm)));
      row.append(...numbers.map(value => made("td", said(value, 4))));
      return row;
    }),
  );
}

function sentence(cube, now, lat, lon) {
  const ndvi = now.indices.ndvi;
  return (
    `Spectrum at ${lat.toFixed(5)}, ${lon.toFixed(5)}: ${quality(cube, now)}` +
    (ndvi === null ? "" : `, NDVI ${ndvi.toFixed(2)}`)
  );
}

/** The quality, named as in the legend. */
function quality(cube, now) {
  const { labels } = cube.layers.find(layer => layer.name === "quality");
  return labels.find(label => label.value === now.quality.value)?.name ?? now.quality.meaning;
}

/** The middle of a period in milliseconds. */
function middle(cube, label) {
  const { start, end } = cube.periods.find(period => period.label === label);
  return (Date.parse(start) + Date.parse(end)) / 2;
}

/** A period's first month. */
function short(cube, label) {
  const { start } = cube.periods.find(period => period.label === label);
  return `${start.slice(5, 7)}/${start.slice(2, 4)}`;
}

function key({ name, colour, dashed }) {
  const item = made("span", name);
  item.className = `key ${colour}${dashed ? " dashed" : ""}`;
  return item;
}

function made(name, text) {
  return element(name, text === undefined ? {} : { textContent: text });
}
