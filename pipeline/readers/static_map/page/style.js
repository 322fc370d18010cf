// How OpenLayers draws a layer of the cube on the graphics card.

/** The bands that a layer reads, each once. */
export const bandsOf = layer => [...new Set(layer.bands)];

/** OpenLayers' style. Stored numbers times `scale` are what people know; `low` and `high` can be changed later. */
export function styleOf(layer, scale, low, high) {
  const bands = bandsOf(layer),
    nothing = ["==", ["band", Math.max(bands.length, 1) + 1], 0]; // OpenLayers' own: 0 where no band has data
  if (layer.kind === "labels") return { color: labels(layer) };
  const value = band => ["*", ["band", bands.indexOf(band) + 1], scale];
  const share = number => ["clamp", ["/", ["-", number, ["var", "low"]], ["-", ["var", "high"], ["var", "low"]]], 0, 1];
  const variables = { low, high };
  if (layer.kind === "colour") {
    const mixed = layer.bands.map(band => share(value(band)));
    return { variables, color: ["array", ...mixed, ["case", nothing, 0, 1]] };
  }
  const shown = layer.index ? difference(...layer.bands.map(value)) : mean(bands.map(value));
  const stops = layer.colours.flatMap((colour, i) => [i / (layer.colours.length - 1), colour]);
  return { variables, color: ["case", nothing, [0, 0, 0, 0], ["interpolate", ["linear"], share(shown), ...stops]] };
}

function labels(layer) {
  const drawn = layer.labels.filter(({ value }) => value !== 0);
  return ["match", ["band", 1], ...drawn.flatMap(({ value, colour }) => [value, colour]), [0, 0, 0, 0]];
}

const difference = (a, b) => ["/", ["-", a, b], ["+", a, b]];

const mean = values => ["/", values.length > 1 ? ["+", ...values] : values[0], values.length];
