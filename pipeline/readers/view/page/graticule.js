// Lines of longitude and latitude at round steps, and their labels along the edges.

const STEPS = [
  10,
  5,
  2,
  1,
  30 / 60,
  20 / 60,
  10 / 60,
  5 / 60,
  2 / 60,
  1 / 60,
  30 / 3600,
  20 / 3600,
  10 / 3600,
  5 / 3600,
  2 / 3600,
  1 / 3600,
];

/** GeoJSON of the lines in a view, and where each meets the left or the upper edge. */
export function graticule(map) {
  const bounds = map.getBounds(),
    width = bounds.getEast() - bounds.getWest();
  const wanted = width / Math.max(2, map.getContainer().clientWidth / 220);
  const step = STEPS.findLast(size => size >= wanted) ?? STEPS[0];
  const lines = [],
    labels = [];
  for (const lon of multiples(bounds.getWest(), bounds.getEast(), step)) {
    lines.push([
      [lon, bounds.getSouth()],
      [lon, bounds.getNorth()],
    ]);
    labels.push({
      edge: "top",
      at: map.project([lon, bounds.getNorth()]).x,
      text: degrees(turned(lon), step, "E", "W"),
    });
  }
  for (const lat of multiples(bounds.getSouth(), bounds.getNorth(), step)) {
    lines.push([
      [bounds.getWest(), lat],
      [bounds.getEast(), lat],
    ]);
    labels.push({ edge: "left", at: map.project([bounds.getWest(), lat]).y, text: degrees(lat, step, "N", "S") });
  }
  return {
    lines: { type: "Feature", properties: {}, geometry: { type: "MultiLineString", coordinates: lines } },
    labels,
  };
}

function multiples(from, to, step) {
  const found = [];
  for (let count = Math.ceil(from / step); count * step <= to; count++) found.push(count * step);
  return found;
}

function turned(lon) {
  return ((((lon + 180) % 360) + 360) % 360) - 180;
}

/** Degrees, minutes and seconds, as far as the step needs them. */
function degrees(value, step, positive, negative) {
  const seconds = Math.round(Math.abs(value) * 3600);
  let text = `${Math.floor(seconds / 3600)}°`;
  if (step < 1) text += `${String(Math.floor(seconds / 60) % 60).padStart(2, "0")}′`;
  if (step < 1 / 60) text += `${String(seconds % 60).padStart(2, "0")}″`;
  return text + (seconds === 0 ? "" : value > 0 ? positive : negative);
}
