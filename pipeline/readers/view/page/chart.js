// Line charts as SVG: spectra over wavelength, numbers over periods.

const WIDTH = 340,
  HEIGHT = 190,
  LEFT = 38,
  RIGHT = 10,
  TOP = 10,
  BOTTOM = 30;

/**
 * A chart of lines.
 *
 * lines: [{ name, colour (a class), dashed, points: [[x, y or null], ...] }]
 * x, y: { from, to, ticks: [[at, label], ...], title }
 */
export function lineChart(lines, x, y, label) {
  const svg = made("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  const across = at => LEFT + ((at - x.from) / (x.to - x.from || 1)) * (WIDTH - LEFT - RIGHT);
  const up = at => HEIGHT - BOTTOM - ((at - y.from) / (y.to - y.from || 1)) * (HEIGHT - TOP - BOTTOM);
  for (const [at, text] of y.ticks) {
    svg.append(made("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: up(at), y2: up(at) }));
    svg.append(made("text", { class: "tick", x: LEFT - 5, y: up(at) + 3.5, "text-anchor": "end" }, text));
  }
  for (const [at, text] of x.ticks) {
    svg.append(
      made("line", { class: "mark", x1: across(at), x2: across(at), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }),
    );
    svg.append(made("text", { class: "tick", x: across(at), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, text));
  }
  svg.append(made("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }));
  if (x.title)
    svg.append(made("text", { class: "tick", x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, x.title));
  for (const line of lines) {
    const path = pathOf(line.points, across, up);
    svg.append(made("path", { class: `line ${line.colour}${line.dashed ? " dashed" : ""}`, d: path }));
    for (const [at, value, text] of line.points) {
      if (value === null || value === undefined) continue;
      const dot = made("circle", {
        class: `dot ${line.colour}`,
        cx: across(at),
        cy: up(value),
        r: line.dashed ? 2.2 : 3,
      });
      dot.append(made("title", {}, text ?? `${line.name}: ${value}`));
      svg.append(dot);
    }
  }
  return svg;
}

/** An axis that holds all values, with round ticks. */
export function axis(values, least = 0, most = 0) {
  const seen = values.filter(value => value !== null && value !== undefined);
  const low = Math.min(least, ...seen),
    high = Math.max(most, ...seen);
  const rough = (high - low || 1) / 4,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(part => part * power).find(part => part >= rough - 1e-12);
  const from = Math.floor(low / step + 1e-9) * step,
    to = Math.ceil(high / step - 1e-9) * step,
    ticks = [];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) + (step / power === 2.5 ? 1 : 0);
  for (let at = from; at <= to + step / 2; at += step) ticks.push([at, at.toFixed(digits).replace("-", "−")]);
  return { from, to: to > from ? to : from + step, ticks };
}

function pathOf(points, across, up) {
  let path = "",
    open = false;
  for (const [at, value] of points) {
    if (value === null || value === undefined) {
      open = false;
      continue;
    }
    path += `${open ? "L" : "M"}${across(at).toFixed(1)} ${up(value).toFixed(1)}`;
    open = true;
  }
  return path;
}

function made(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
