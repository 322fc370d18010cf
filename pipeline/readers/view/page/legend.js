// The legend of a layer.

import { element, said } from "./dom.js";

const CHANNELS = ["red", "green", "blue"];

/** Elements that explain a layer drawn from low to high; bands: those of the cube. */
export function legend(layer, low, high, bands) {
  if (layer.kind === "labels") return [labels(layer)];
  const own = [...new Set(layer.bands)];
  if (layer.kind === "colour" && own.length === 3) return [channels(own, bands)];
  const ramp = element("div", { className: "ramp" });
  const colours = layer.colours.length ? layer.colours : ["#000", "#fff"];
  ramp.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  const ends = [low, (low + high) / 2, high].map(value => element("span", { textContent: said(value) }));
  return [
    ramp,
    element("div", { className: "ends" }, ends),
    element("p", { className: "note", textContent: what(layer) }),
  ];
}

function what(layer) {
  if (layer.kind === "colour") return "Surface reflectance";
  return layer.index ? layer.formula : `Standard deviation of reflectance, ${layer.formula}`;
}

function channels(own, bands) {
  const items = own.map((name, i) => {
    const { nm } = bands.find(band => band.name === name);
    const text = `${CHANNELS[i][0].toUpperCase()}${CHANNELS[i].slice(1)} is ${name}, ${Math.round(nm)} nm`;
    return element("li", {}, [
      element("i", { className: `swatch ${CHANNELS[i]}` }),
      element("span", { textContent: text }),
    ]);
  });
  return element("ul", { className: "keys" }, items);
}

function labels(layer) {
  const items = layer.labels.map(({ colour, name, day, value }) => {
    const swatch = element("i", { className: value === 0 ? "swatch empty" : "swatch" });
    if (value !== 0) swatch.style.background = colour;
    return element("li", {}, [swatch, element("span", { textContent: name }), element("small", { textContent: day })]);
  });
  return element("ul", { className: "keys" }, items);
}
