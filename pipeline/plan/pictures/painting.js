// ---- colours --------------------------------------------------------------------------------------------------------

const parse = colour => [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16));
const mix = (one, other, share) => one.map((v, i) => v * share + other[i] * (1 - share));
const word = ([r, g, b], a = 255) => ((a << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;
const strength = clear => .14 + .86 * clear ** 1.5;
function along(stops, place) {
  const at = Math.max(0, Math.min(1, place)) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  return mix(parse(stops[i + 1]), parse(stops[i]), at - i);
}
function theme() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["paper", "ink", "soft", "sea", "bare"].map(k => [k, style.getPropertyValue("--" + k).trim()]));
}

/** The colour of a shift in 1/100000 on a band's scale; another one where it is not known. */
function shifted(plan, value, band, unknown) {
  return value === null ? unknown : along(plan.balance.ramp, value / plan.balance.limits[band] / 2 + .5);
}

/** One colour per cell, as the canvas needs it (ABGR). */
function colour(plan, state) {
  const paper = parse(state.theme.paper), bare = parse(state.theme.bare), dates = plan.colours.map(parse);
  const ramp = Array.from({ length: 101 }, (_, i) => along(plan.ramp, i / 100));
  const scenes = state.mode === "balance" ? plan.balance.by_scene.map(shifts => shifted(plan, shifts[state.band], state.band, bare)) : null;
  const out = new Uint32Array(plan.row.length);
  for (let i = 0; i < out.length; i++) {
    const clear = plan.clear[i] / 1e4;
    let rgb;
    if (state.mode === "date") rgb = mix(dates[plan.date[i]], paper, strength(clear));
    else if (state.mode === "clear") rgb = ramp[Math.round(100 * clear)];
    else if (scenes) rgb = scenes[firstScene(plan, i)];
    else rgb = along(SCENE_RAMP, plan.most > 1 ? (plan.scenes[i] / 100 - 1) / (plan.most - 1) : 0);
    out[i] = word(state.chosen.size && !state.chosen.has(plan.date[i]) ? mix(rgb, bare, .1) : rgb);
  }
  return out;
}

// ---- map ------------------------------------------------------------------------------------------------------------

function paint(plan, state, canvas, quick) {
  const width = canvas.clientWidth, height = canvas.clientHeight, dense = window.devicePixelRatio || 1;
  const ratio = quick ? Math.min(dense, 1) : Math.min(dense, 2.5), w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (!state.cells || state.cells.length !== w * h) {
    state.cells = new Int32Array(w * h);
    state.layer = Object.assign(document.createElement("canvas"), { width: w, height: h });
    state.image = new ImageData(w, h);
  }
  Object.assign(state, { w, h, ratio });
  sample(plan, state.view, w, h, ratio, state.cells);
  shade(plan, state);
  state.layer.getContext("2d").putImageData(state.image, 0, 0);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = state.theme.sea; pen.fillRect(0, 0, width, height);
  const outline = trace(plan, state.view, width, height);
  pen.fillStyle = state.theme.bare; pen.fill(outline, "evenodd");
  pen.drawImage(state.layer, 0, 0, width, height);
  graticule(pen, state, width, height);
  zoneBorders(plan, pen, state, width, height);
  pen.setLineDash([]); pen.strokeStyle = state.theme.ink; pen.lineWidth = 1.5; pen.stroke(outline);
  if (state.cross) crosshair(pen, state, width, height);
  scaleBar(state.view, width);
}

/** Cells to pixels: colour, stripes where nothing is clear, sides between dates and between cells. */
function shade(plan, state) {
  const { cells, w, h, colours, ratio, selected, mode } = state, { date, clear } = plan;
  const out = new Uint32Array(state.image.data.buffer), period = Math.max(6, Math.round(6 * ratio)), stripe = Math.round(period / 3);
  const size = plan.side / 111320 * state.view.scale, ink = parse(state.theme.ink), paper = parse(state.theme.paper);
  const border = mode === "date" ? Math.max(0, Math.min(1, (size - 1) / 4)) * .8 : 0;
  const side = Math.max(0, Math.min(1, (size - 5) / 10)) * .5, grey = word([104, 108, 116]);
  const shaded = (p, other, share) => {
    const v = out[p];
    return word(mix(other, [v & 255, v >> 8 & 255, v >> 16 & 255], share));
  };
  for (let y = 0, p = 0; y < h; y++) for (let x = 0; x < w; x++, p++) {
    const cell = cells[p];
    if (cell < 0) { out[p] = 0; continue; }
    out[p] = clear[cell] === 0 && (mode === "date" || mode === "clear") && (x + y) % period < stripe ? grey : colours[cell];
  }
  const bold = Math.max(1, Math.round(ratio));
  for (let y = 0, p = 0; y < h - 1; y++, p = y * w) for (let x = 0; x < w - 1; x++, p++) {
    const cell = cells[p];
    for (const q of [p + 1, p + w]) {
      const other = cells[q];
      if (cell === other) continue;
      if (selected >= 0 && (cell === selected || other === selected)) {
        for (let d = 0; d < 2 * bold; d++) for (const z of q === p + 1 ? [p - d, q + d] : [p - d * w, q + d * w])
          if (z >= 0 && z < out.length && cells[z] >= 0) out[z] = word(ink);
      } else if (cell >= 0 && other >= 0) {
        if (border && date[cell] !== date[other]) { out[p] = shaded(p, ink, border); if (bold > 1) out[q] = shaded(q, ink, border); }
        else if (side) out[p] = shaded(p, paper, side);
      }
    }
  }
}

function trace(plan, view, width, height) {
  const path = new Path2D();
  for (const line of plan.outline) {
    for (let i = 0; i < line.length; i += 2) {
      const [x, y] = view.pixels(line[i], line[i + 1], width, height);
      i ? path.lineTo(x, y) : path.moveTo(x, y);
    }
  }
  return path;
}

function roundStep(least) {
  const ten = 10 ** Math.floor(Math.log10(least)), step = [1, 2, 5, 10].find(f => f * ten >= least) * ten;
  return step > 5 ? [10, 15, 30, 45, 90].find(s => s >= least) || 90 : step;
}

function graticule(pen, state, width, height) {
  const { view } = state, [west, north] = view.degrees(0, 0, width, height), [east, south] = view.degrees(width, height, width, height);
  pen.font = "12px system-ui, sans-serif"; pen.lineWidth = 1; pen.setLineDash([]); pen.lineJoin = "round";
  const label = (text, x, y, align, base) => {
    pen.textAlign = align; pen.textBaseline = base; pen.globalAlpha = .85; pen.strokeStyle = state.theme.paper; pen.lineWidth = 3;
    pen.strokeText(text, x, y); pen.globalAlpha = 1; pen.fillStyle = state.theme.soft; pen.fillText(text, x, y); pen.lineWidth = 1;
  };
  const line = (x0, y0, x1, y1) => {
    pen.strokeStyle = state.theme.soft; pen.globalAlpha = .28; pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke();
  };
  const name = (value, step, sides) => {
    const text = Math.abs(value).toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9))) + "°";
    return parseFloat(text) % 180 === 0 && (sides === "EW" || parseFloat(text) === 0) ? text : `${text} ${value > 0 ? sides[0] : sides[1]}`;
  };
  const lonStep = roundStep((east - west) / Math.max(2, width / 110)), latStep = roundStep((north - south) / Math.max(2, height / 100));
  for (let k = Math.ceil(west / lonStep); k * lonStep < east; k++) {
    const [x] = view.pixels(k * lonStep, 0, width, height);
    line(x, 0, x, height);
    if (x > 130 && x < width - 30) label(name(((k * lonStep + 180) % 360 + 360) % 360 - 180, lonStep, "EW"), x, height - 5, "center", "bottom");
  }
  for (let k = Math.ceil(south / latStep); k * latStep < north; k++) {
    const [, y] = view.pixels(0, k * latStep, width, height);
    line(0, y, width, y);
    if (y > 20 && y < height - 60) label(name(k * latStep, latStep, "NS"), 6, y - 2, "left", "bottom");
  }
  pen.globalAlpha = 1;
}

/** Dashed lines where two zones of the plan meet. */
function zoneBorders(plan, pen, state, width, height) {
  pen.setLineDash([8, 6]); pen.strokeStyle = state.theme.ink; pen.lineWidth = 1.2;
  pen.beginPath();
  for (const [west, south, east, north] of plan.zone_borders) {
    pen.moveTo(...state.view.pixels(west, south, width, height)); pen.lineTo(...state.view.pixels(east, north, width, height));
  }
  pen.stroke();
}

function crosshair(pen, state, width, height) {
  pen.setLineDash([]); pen.lineWidth = 4; pen.strokeStyle = state.theme.paper;
  for (let turn = 0; turn < 2; turn++) {
    pen.beginPath();
    pen.moveTo(width / 2 - 12, height / 2); pen.lineTo(width / 2 + 12, height / 2);
    pen.moveTo(width / 2, height / 2 - 12); pen.lineTo(width / 2, height / 2 + 12);
    pen.stroke(); pen.lineWidth = 1.6; pen.strokeStyle = state.theme.ink;
  }
}

function scaleBar(view, width) {
  const km = view.scale / 111.32, most = Math.min(140, width / 4) / km, ten = 10 ** Math.floor(Math.log10(most));
  const length = ten * [5, 2, 1].find(f => f * ten <= most);
  $("km").textContent = length >= 1 ? `${length} km` : `${Math.round(length * 1000)} m`;
  $("bar").style.width = `${length * km}px`;
}
