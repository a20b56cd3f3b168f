// The document of the page, and what the views share: which trials are shown, which one is looked at.
const data = JSON.parse(byId("data").textContent);
const trials = data.trials;
const several = data.experiments.length > 1;
const listeners = [];
const view = {hover: null, chosen: null, text: "", state: "", brushes: new Map(), shown: trials};

trials.forEach((trial, index) => {
  trial.index = index;
  trial.of = data.experiments[trial.experiment];
  trial.name = several ? trial.of.id + "/" + trial.id : String(trial.id);
  trial.words = [trial.name, trial.state, ...Object.entries(trial.hparams).map(([k, v]) => k + "=" + show(v))].join(" ").toLowerCase();
});

const hparamNames = unique(trials.flatMap((trial) => Object.keys(trial.hparams))).filter((name) => {
  return trials.length === 1 || unique(trials.map((trial) => JSON.stringify(trial.hparams[name]))).length > 1;
});
const metricName = data.experiments[0].metric;

// Where a trial stands among all: 0 the best, 1 the worst, null without a metric.
function rankTrials() {
  const smaller = data.experiments[0].smaller_is_better;
  const ranked = trials.filter((trial) => trial.best !== null).sort((a, b) => smaller ? a.best - b.best : b.best - a.best);
  trials.forEach((trial) => { trial.rank = null; });
  ranked.forEach((trial, place) => { trial.place = place + 1; trial.rank = ranked.length > 1 ? place / (ranked.length - 1) : 0; });
}

function colourOf(trial, alpha) {
  return trial.rank === null ? theme.faint : ramp(trial.rank, alpha);
}

function passes(trial) {
  if (view.text && !view.text.toLowerCase().split(/\s+/).every((word) => trial.words.includes(word))) return false;
  if (view.state && trial.state !== view.state) return false;
  for (const test of view.brushes.values()) if (!test(trial)) return false;
  return true;
}

function changed(what) {
  if (what === "filter") {
    view.shown = trials.filter(passes);
    if (view.hover && !view.shown.includes(view.hover)) view.hover = null;
  }
  for (const listener of listeners) listener(what);
}

function hover(trial) {
  if (view.hover === trial) return;
  view.hover = trial;
  changed("hover");
}

function choose(trial) {
  view.chosen = trial;
  changed("choice");
}

function seriesNames() {
  const names = new Set();
  for (const table of data.tables) for (const metric of Object.keys(table.metrics)) names.add(table.group + "\u0000" + metric);
  const order = {validation: 0, training: 1};
  return [...names].map((name) => name.split("\u0000")).sort((a, b) =>
    (b[0] === "validation" && b[1] === metricName) - (a[0] === "validation" && a[1] === metricName) ||
    (order[a[0]] ?? 2) - (order[b[0]] ?? 2) || a[0].localeCompare(b[0]) || a[1].localeCompare(b[1]));
}
