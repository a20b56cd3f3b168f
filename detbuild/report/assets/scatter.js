// One hyperparameter against the metric, and the correlation of each with it.
const scatter = {axis: null};

function ranksOf(values) {
  const order = values.map((value, i) => [value, i]).sort((a, b) => a[0] - b[0]);
  const ranks = new Array(values.length);
  for (let i = 0; i < order.length;) {
    let end = i;
    while (end < order.length && order[end][0] === order[i][0]) end++;
    for (let k = i; k < end; k++) ranks[order[k][1]] = (i + end - 1) / 2;
    i = end;
  }
  return ranks;
}

function correlation(a, b) {
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const ma = mean(a), mb = mean(b);
  let ab = 0, aa = 0, bb = 0;
  a.forEach((value, i) => { ab += (value - ma) * (b[i] - mb); aa += (value - ma) ** 2; bb += (b[i] - mb) ** 2; });
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}

// Spearman's rank correlation for numbers; for categories the square root of the rank variance explained.
function influence(axis) {
  const used = view.shown.filter((trial) => trial.best !== null && axis.of(trial) !== null);
  if (used.length < 3) return 0;
  const metric = ranksOf(used.map((trial) => trial.best));
  if (axis.kind !== "categorical") return correlation(ranksOf(used.map((trial) => axis.of(trial))), metric);
  const groups = new Map();
  used.forEach((trial, i) => { const key = axis.of(trial); groups.set(key, [...(groups.get(key) || []), metric[i]]); });
  const all = metric.reduce((sum, value) => sum + value, 0) / metric.length;
  let between = 0;
  for (const group of groups.values()) between += group.length * (group.reduce((s, v) => s + v, 0) / group.length - all) ** 2;
  const total = metric.reduce((sum, value) => sum + (value - all) ** 2, 0);
  return total ? Math.sqrt(between / total) : 0;
}

function setUpScatter() {
  const axes = parallel.axes.filter((axis) => !axis.metric);
  byId("scatter-card").hidden = byId("parallel-card").hidden || !metricName;
  if (byId("scatter-card").hidden) return;
  scatter.axis = [...axes].sort((a, b) => Math.abs(influence(b)) - Math.abs(influence(a)))[0];
  listeners.push((what) => { if (what === "filter") drawBars(axes); drawScatter(); });
  byId("scatter").addEventListener("pointermove", (event) => hover(nearestDot(...near(event))));
  byId("scatter").addEventListener("pointerleave", () => hover(null));
  byId("scatter").addEventListener("click", () => { if (view.hover) open(view.hover); });
  walkable(byId("scatter"));
  drawBars(axes);
}

function drawBars(axes) {
  const found = axes.map((axis) => [axis, influence(axis)]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  byId("influence").replaceChildren(...found.map(([axis, value]) => {
    const bar = el("span", {class: "bar"}, el("i", {}));
    bar.firstChild.style.width = Math.abs(value) * 100 + "%";
    return el("button", {class: axis === scatter.axis ? "pick on" : "pick", type: "button", title: axis.name, on: {click: () => { scatter.axis = axis; drawBars(axes); drawScatter(); }}},
      el("span", {class: "name"}, axis.name), bar, el("span", {class: "num"}, (axis.kind === "categorical" ? "" : value < 0 ? "−" : "+") + Math.abs(value).toFixed(2)));
  }));
}

function drawScatter() {
  const {pen, width, height} = fit(byId("scatter"));
  const frame = {left: 60, right: width - 16, top: 14, bottom: height - 40};
  const metric = parallel.axes.find((axis) => axis.metric);
  const xs = scaleAxis(scatter.axis, frame.right - 8, frame.left + 8), ys = scaleAxis(metric, frame.top + 6, frame.bottom - 6);
  pen.clearRect(0, 0, width, height);
  grid(pen, frame, xs, ys, 4);
  label(pen, shorten(pen, scatter.axis.name + (scatter.axis.kind === "log" ? " (log)" : ""), frame.right - frame.left), (frame.left + frame.right) / 2, height - 8, {align: "center"});
  scatter.dots = view.shown.filter((trial) => trial.best !== null && scatter.axis.of(trial) !== null)
    .map((trial) => ({trial, x: xs(scatter.axis.of(trial)), y: ys(trial.best)}));
  for (const dot of scatter.dots) {
    const marked = dot.trial === view.hover || dot.trial === view.chosen || view.picked.has(dot.trial);
    pen.fillStyle = pickColour(dot.trial) || (marked ? theme.warm : colourOf(dot.trial, 0.75));
    pen.beginPath(); pen.arc(dot.x, dot.y, marked ? 6 : 3.5, 0, 7); pen.fill();
  }
}

function nearestDot(px, py) {
  let best = null, distance = 12;
  for (const dot of scatter.dots || []) {
    const away = Math.hypot(dot.x - px, dot.y - py);
    if (away < distance) { distance = away; best = dot.trial; }
  }
  return best;
}
