// Learning curves of one metric, one line per trial; the one under the pointer is highlighted.
const curves = {group: "", metric: "", x: "batches", log: false, clip: false, smooth: 0, zoom: null, lines: [], drag: null};

function epochShare(trial) {
  return trial.epochs_per_batch;
}

function buildLines() {
  curves.lines = [];
  for (const table of data.tables) {
    const values = own(table.metrics, curves.metric);
    if (table.group !== curves.group || !values) continue;
    const trial = trials[table.trial];
    const share = epochShare(trial);
    const xs = curves.x === "time" ? table.times : curves.x === "epochs" ? (share ? table.steps.map((n) => n * share) : null) : table.steps;
    if (xs) curves.lines.push({trial, xs, raw: values, ys: smoothed(values, curves.smooth)});
  }
}

// Exponential moving average with bias correction, so that it starts at the first value.
function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0, share = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    share = share * weight + 1 - weight;
    return sum / share;
  });
}

function setUpCurves() {
  const names = seriesNames();
  const pick = byId("curve-metric");
  names.forEach(([group, metric], i) => pick.append(el("option", {value: String(i)}, group + " · " + metric)));
  const set = () => {
    [curves.group, curves.metric] = names[Number(pick.value)] || ["", ""];
    curves.x = byId("curve-x").value;
    curves.log = byId("curve-log").checked;
    curves.clip = byId("curve-clip").checked;
    curves.smooth = Number(byId("curve-smooth").value);
    curves.zoom = null;
    buildLines();
    drawCurves();
  };
  const axes = ["batches", ...(trials.some(epochShare) ? ["epochs"] : []), "time"];
  axes.forEach((name) => byId("curve-x").append(el("option", {value: name}, name === "time" ? "time (s)" : name)));
  for (const id of ["curve-metric", "curve-x", "curve-log", "curve-clip", "curve-smooth"]) byId(id).addEventListener("input", set);
  byId("curve-csv").addEventListener("click", () => download(`${curves.metric}.csv`, curveRows()));
  for (const node of document.querySelectorAll(".ranked")) node.hidden = trials.filter((trial) => trial.rank !== null).length < 2;
  byId("curves-empty").hidden = names.length > 0;
  const canvas = byId("curves");
  walkable(canvas, () => { curves.zoom = null; drawCurves(); });
  canvas.addEventListener("pointermove", moveOverCurves);
  canvas.addEventListener("pointerleave", () => { byId("curve-tip").hidden = true; hover(null); });
  canvas.addEventListener("pointerdown", (event) => { curves.drag = [near(event)[0], near(event)[0]]; });
  canvas.addEventListener("pointerup", endDrag);
  canvas.addEventListener("dblclick", () => { curves.zoom = null; drawCurves(); });
  listeners.push((what) => what === "hover" || what === "choice" ? overCurves() : drawCurves());
  set();
}

function curveScales(frame) {
  const shown = new Set(view.shown);
  curves.visible = curves.lines.filter((line) => shown.has(line.trial));
  let [x0, x1] = curves.zoom || [Infinity, -Infinity];
  if (!curves.zoom) for (const line of curves.visible) {
    x0 = Math.min(x0, line.xs[0]); x1 = Math.max(x1, line.xs[line.xs.length - 1]);
  }
  if (x0 > x1) [x0, x1] = [0, 1];
  const found = [];
  for (const line of curves.visible) for (let i = 0; i < line.ys.length; i++) {
    const y = line.ys[i];
    if (y !== null && line.xs[i] >= x0 && line.xs[i] <= x1 && (!curves.log || y > 0)) found.push(y);
  }
  let [y0, y1] = curves.clip ? middle(found) : extent(found);
  if (curves.log && !found.length) [y0, y1] = [0.1, 1];
  if (y0 === y1) [y0, y1] = curves.log ? [y0 / 2, y1 * 2] : [y0 - Math.abs(y0 || 1) / 2, y1 + Math.abs(y1 || 1) / 2];
  const pad = curves.log ? 0 : (y1 - y0) * 0.04;
  return [linear(x0, x1, frame.left, frame.right), (curves.log ? logarithmic : linear)(y0 - pad, y1 + pad, frame.bottom, frame.top)];
}

// Range without outliers beyond Tukey's outer fences (three times the interquartile range).
function middle(values) {
  const sorted = Float64Array.from(values).sort();
  const low = sorted[sorted.length >> 2], high = sorted[(3 * sorted.length) >> 2];
  const inside = sorted.filter((value) => value >= low - 3 * (high - low) && value <= high + 3 * (high - low));
  return extent(inside);
}

function curveRows() {
  const shown = new Set(view.shown);
  const rows = curves.lines.filter((line) => shown.has(line.trial)).flatMap((line) => line.xs.map((x, i) => [line.trial.name, x, line.raw[i]]));
  return [["trial", curves.x, curves.metric], ...rows.filter((row) => row[2] !== null)];
}

function drawCurves() {
  const canvas = byId("curves");
  const {pen, width, height} = fit(canvas);
  const frame = {left: 64, right: width - 30, top: 12, bottom: height - 28};
  const [xs, ys] = curveScales(frame);
  Object.assign(curves, {frame, xScale: xs, yScale: ys});
  canvas.setAttribute("aria-label", visible(`${curves.visible.length} curves of ${curves.metric} over ${curves.x}, from ${show(ys.invert(frame.bottom))} to ${show(ys.invert(frame.top))}`));
  pen.clearRect(0, 0, width, height);
  grid(pen, frame, xs, ys);
  pen.save();
  pen.beginPath(); pen.rect(frame.left - 4, frame.top - 4, frame.right - frame.left + 8, frame.bottom - frame.top + 8); pen.clip();
  const alpha = view.picked.size ? 0.12 : curves.visible.length > 60 ? 0.35 : 0.85;
  const order = [...curves.visible].sort((a, b) => (b.trial.rank ?? 2) - (a.trial.rank ?? 2));
  for (const line of order) strokeLine(pen, line, colourOf(line.trial, alpha), curves.visible.length > 60 ? 1 : 1.6);
  for (const line of order) if (view.picked.has(line.trial)) strokeLine(pen, line, pickColour(line.trial), 2);
  pen.restore();
  curves.base = document.createElement("canvas");
  curves.base.width = canvas.width;
  curves.base.height = canvas.height;
  curves.base.getContext("2d").drawImage(canvas, 0, 0);
  overCurves();
}

function strokeLine(pen, line, colour, thick) {
  pen.strokeStyle = colour;
  pen.lineWidth = thick;
  pen.lineJoin = "round";
  pen.beginPath();
  let down = false, alone = null;
  for (let i = 0; i < line.xs.length; i++) {
    const y = line.ys[i] === null ? NaN : curves.yScale(line.ys[i]);
    if (Number.isNaN(y)) { down = false; continue; }
    const x = curves.xScale(line.xs[i]);
    if (down) { pen.lineTo(x, y); alone = null; } else { pen.moveTo(x, y); alone = [x, y]; }
    down = true;
  }
  pen.stroke();
  if (alone) { pen.fillStyle = colour; pen.beginPath(); pen.arc(alone[0], alone[1], 3, 0, 7); pen.fill(); }
}

function overCurves() {
  const canvas = byId("curves"), pen = canvas.getContext("2d");
  pen.save();
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const marked = [view.chosen, view.hover].filter(Boolean);
  pen.globalAlpha = view.hover ? 0.35 : 1;
  pen.drawImage(curves.base, 0, 0);
  pen.restore();
  pen.save();
  pen.beginPath(); pen.rect(curves.frame.left - 4, 0, curves.frame.right - curves.frame.left + 8, curves.frame.bottom + 4); pen.clip();
  for (const trial of marked) for (const line of curves.visible) if (line.trial === trial) strokeLine(pen, line, theme.warm, 2.5);
  if (curves.drag && Math.abs(curves.drag[1] - curves.drag[0]) > 4) {
    pen.globalAlpha = 0.15; pen.fillStyle = theme.accent;
    pen.fillRect(curves.drag[0], curves.frame.top, curves.drag[1] - curves.drag[0], curves.frame.bottom - curves.frame.top);
  }
  pen.restore();
}

function valueAt(line, x) {
  let low = 0, high = line.xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (line.xs[middle] < x) low = middle + 1; else high = middle;
  }
  if (low > 0 && x - line.xs[low - 1] < line.xs[low] - x) low -= 1;
  return low;
}

function nearestLine(px, py) {
  let best = null, distance = 30;
  for (const line of curves.visible) {
    const i = valueAt(line, curves.xScale.invert(px));
    if (line.ys[i] === null || line.ys[i] === undefined) continue;
    const away = Math.hypot((curves.xScale(line.xs[i]) - px) / 3, curves.yScale(line.ys[i]) - py);
    if (away < distance) { distance = away; best = {line, i}; }
  }
  return best;
}

function moveOverCurves(event) {
  const [px, py] = near(event);
  if (curves.drag) { curves.drag[1] = px; overCurves(); return; }
  const found = nearestLine(px, py), tip = byId("curve-tip");
  tip.hidden = !found;
  if (found) {
    const {line, i} = found;
    tip.replaceChildren(el("b", {}, "trial " + line.trial.name), el("span", {}, curves.metric + " " + show(line.raw[i]) + (curves.smooth ? ", smoothed " + show(line.ys[i]) : "")),
      el("span", {class: "soft"}, curves.x + " " + show(line.xs[i])));
    tip.style.left = Math.min(px + 14, curves.frame.right - 150) + "px";
    tip.style.top = Math.max(0, py - 30) + "px";
  }
  hover(found ? found.line.trial : null);
}

function endDrag(event) {
  const [from, to] = (curves.drag || [0, 0]).slice().sort((a, b) => a - b);
  curves.drag = null;
  if (to - from > 8) { curves.zoom = [curves.xScale.invert(from), curves.xScale.invert(to)]; drawCurves(); }
  else { const found = nearestLine(...near(event)); if (found) open(found.line.trial); }
}
