// Parallel coordinates: one axis per hyperparameter, and one for the searcher metric; drag along an axis to filter.
const parallel = {axes: [], drag: null};
const MOST_AXES = 40;
const FEW_AXES = 12; // more are sorted by correlation with the metric
const AXIS_WIDTH = 92; // pixels

function kindOf(values, declared) {
  if (!values.every((value) => typeof value === "number" && Number.isFinite(value))) return "categorical";
  const [low, high] = extent(values);
  return declared === "log" || (low > 0 && high / low >= 100) ? "log" : "numeric";
}

function axisFor(name, read, declared) {
  const values = trials.map(read).filter((value) => value !== undefined && value !== null);
  const kind = kindOf(values, declared);
  const plain = kind === "categorical" ? (value) => typeof value === "object" ? JSON.stringify(value) : value : (value) => value;
  const categories = unique(values.map(plain)).sort((a, b) => String(a).localeCompare(String(b), "en", {numeric: true}));
  return {name, kind, extent: extent(values), categories, of: (trial) => { const found = read(trial); return found === undefined || found === null ? null : plain(found); }};
}

function setUpParallel() {
  const many = hparamNames.length > FEW_AXES;
  const axes = hparamNames.map((name) => axisFor(name, (trial) => trial.hparams[name], data.experiments[0].log_hparams.includes(name) ? "log" : ""));
  const strength = new Map(many ? axes.map((axis) => [axis, Math.abs(influence(axis))]) : []);
  parallel.axes = (many ? axes.sort((a, b) => strength.get(b) - strength.get(a)) : axes).slice(0, MOST_AXES);
  // Next to the strongest axes, so that it is visible without scrolling.
  if (metricName) parallel.axes.splice(many ? 0 : parallel.axes.length, 0, {...axisFor(metricName, (trial) => trial.best, ""), metric: true});
  byId("parallel-card").hidden = trials.length < 2 || parallel.axes.length < 2;
  byId("parallel-note").textContent = many ? `${Math.min(MOST_AXES, hparamNames.length)} of ${hparamNames.length}, the strongest first` : "";
  const canvas = byId("parallel");
  canvas.style.minWidth = parallel.axes.length * AXIS_WIDTH + "px";
  walkable(canvas);
  canvas.addEventListener("pointerdown", (event) => {
    const [px, py] = near(event), axis = parallel.axes.find((one) => Math.abs(one.x - px) < 24);
    parallel.dragged = false;
    if (axis) { parallel.drag = {axis, from: py, to: py}; canvas.setPointerCapture(event.pointerId); }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!parallel.drag) return hoverParallel(...near(event));
    parallel.drag.to = near(event)[1];
    parallel.dragged = parallel.dragged || Math.abs(parallel.drag.to - parallel.drag.from) > 3;
    brush(parallel.drag.axis, parallel.drag.from, parallel.drag.to);
  });
  canvas.addEventListener("pointerup", () => {
    if (parallel.drag && Math.abs(parallel.drag.to - parallel.drag.from) < 4) brush(parallel.drag.axis, 0, 0);
    parallel.drag = null;
  });
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", () => { if (view.hover && !parallel.dragged) open(view.hover); });
  listeners.push(drawParallel);
}

function brush(axis, from, to) {
  const [top, bottom] = from < to ? [from, to] : [to, from];
  if (bottom - top < 4) { axis.brush = null; view.brushes.delete(axis); }
  else {
    axis.brush = [top, bottom];
    view.brushes.set(axis, (trial) => {
      const value = axis.of(trial), y = value === null ? NaN : axis.scale(value);
      return y >= top - 0.5 && y <= bottom + 0.5;
    });
  }
  changed("filter");
}

function scaleAxis(axis, top, bottom) {
  if (axis.kind === "categorical") return categorical(axis.categories, bottom, top);
  let [low, high] = axis.extent;
  if (low === high) [low, high] = axis.kind === "log" ? [low / 2, high * 2] : [low - 1, high + 1];
  return (axis.kind === "log" ? logarithmic : linear)(low, high, bottom, top);
}

function drawParallel() {
  if (byId("parallel-card").hidden) return;
  const {pen, width, height} = fit(byId("parallel"));
  const top = 38, bottom = height - 14, left = 46, right = width - 62;
  const step = (right - left) / (parallel.axes.length - 1);
  parallel.axes.forEach((axis, i) => { axis.x = left + i * step; axis.scale = scaleAxis(axis, top, bottom); });
  pen.clearRect(0, 0, width, height);
  const shown = new Set(view.shown);
  const order = [...trials].sort((a, b) => (b.rank ?? 2) - (a.rank ?? 2));
  for (const trial of order) if (!shown.has(trial)) strokeTrial(pen, trial, theme.line, 1);
  const alpha = view.hover || view.picked.size ? 0.18 : shown.size > 100 ? 0.25 : 0.75;
  for (const trial of order) if (shown.has(trial)) strokeTrial(pen, trial, colourOf(trial, alpha), 1.3);
  for (const trial of view.picked) if (shown.has(trial)) strokeTrial(pen, trial, pickColour(trial), 2);
  for (const trial of [view.chosen, view.hover]) if (trial) strokeTrial(pen, trial, theme.warm, 2.5);
  parallel.axes.forEach((axis, i) => drawAxis(pen, axis, {top, bottom, step, first: i === 0, last: i === parallel.axes.length - 1}));
}

function strokeTrial(pen, trial, colour, thick) {
  pen.strokeStyle = colour;
  pen.lineWidth = thick;
  pen.beginPath();
  let before = null;
  for (const axis of parallel.axes) {
    const value = axis.of(trial);
    if (value === null) { before = null; continue; }
    const y = axis.scale(value);
    if (before) pen.bezierCurveTo((before[0] + axis.x) / 2, before[1], (before[0] + axis.x) / 2, y, axis.x, y);
    else pen.moveTo(axis.x, y);
    before = [axis.x, y];
  }
  pen.stroke();
}

function drawAxis(pen, axis, room) {
  pen.strokeStyle = axis.metric ? theme.accent : theme.faint;
  pen.lineWidth = axis.metric ? 2 : 1;
  pen.beginPath(); pen.moveTo(axis.x, room.top); pen.lineTo(axis.x, room.bottom); pen.stroke();
  if (axis.brush) {
    pen.globalAlpha = 0.3; pen.fillStyle = theme.accent;
    pen.fillRect(axis.x - 8, axis.brush[0], 16, axis.brush[1] - axis.brush[0]);
    pen.globalAlpha = 1;
  }
  const align = room.first ? "left" : room.last ? "right" : "center";
  const x = room.first ? axis.x - 40 : room.last ? axis.x + 56 : axis.x;
  pen.font = "600 12px system-ui, sans-serif";
  label(pen, shortenMiddle(pen, axis.name, room.step - 8), x, 12, {align, colour: theme.ink});
  pen.font = "11px system-ui, sans-serif";
  if (axis.kind === "log") label(pen, "log", x, 26, {align});
  const ticks = axis.scale.ticks(5), every = Math.ceil(ticks.length / 12);
  ticks.forEach((tick, i) => {
    if (i % every) return;
    const text = shorten(pen, show(tick), Math.min(room.last ? 54 : 90, Math.max(30, room.step - 14)));
    const wide = pen.measureText(text).width;
    pen.globalAlpha = 0.8; pen.fillStyle = theme.card;
    pen.fillRect(axis.x + 5, axis.scale(tick) - 7, wide + 4, 14);
    pen.globalAlpha = 1;
    label(pen, text, axis.x + 7, axis.scale(tick), {});
  });
}

function hoverParallel(px, py) {
  const at = parallel.axes.findIndex((axis) => axis.x >= px);
  if (at < 1) return hover(null);
  const [a, b] = [parallel.axes[at - 1], parallel.axes[at]];
  let t = (px - a.x) / (b.x - a.x), best = null, distance = 8;
  t = t * t * (3 - 2 * t);
  for (const trial of view.shown) {
    const from = a.of(trial), to = b.of(trial);
    if (from === null || to === null) continue;
    const away = Math.abs(a.scale(from) * (1 - t) + b.scale(to) * t - py);
    if (away < distance) { distance = away; best = trial; }
  }
  hover(best);
}
