// The document of the page, and the state that views share: shown, selected and open trials.
const data = JSON.parse(byId("data").textContent);
const trials = data.trials;
const several = data.experiments.length > 1;
const listeners = [];
const view = {hover: null, chosen: null, picked: new Set(), text: "", state: "", brushes: new Map(), shown: trials};
const metricName = data.experiments[0].metric;

function flat(mapping, prefix) {
  return Object.entries(mapping).flatMap(([key, value]) => {
    const inner = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length;
    return inner ? flat(value, prefix + key + ".") : [[prefix + key, value]];
  });
}

trials.forEach((trial, index) => {
  trial.index = index;
  trial.of = data.experiments[trial.experiment];
  trial.nested = trial.hparams;
  trial.hparams = Object.setPrototypeOf(Object.fromEntries(flat(trial.nested, "")), null);
  if (trial.of.metric !== metricName) trial.best = trial.latest = null;
  trial.name = several ? trial.of.id + "/" + trial.id : String(trial.id);
  trial.words = [trial.name, trial.state, ...Object.entries(trial.hparams).map(([k, v]) => k + "=" + show(v))].join(" ").toLowerCase();
});

const hparamNames = unique(trials.flatMap((trial) => Object.keys(trial.hparams))).filter((name) => {
  return trials.length === 1 || unique(trials.map((trial) => JSON.stringify(trial.hparams[name]))).length > 1;
});
// Rank of a trial: 0 the best, 1 the worst, null without a metric.
function rankTrials() {
  const smaller = data.experiments[0].smaller_is_better;
  const ranked = trials.filter((trial) => trial.best !== null).sort((a, b) => smaller ? a.best - b.best : b.best - a.best);
  trials.forEach((trial) => { trial.rank = null; });
  ranked.forEach((trial, place) => { trial.place = place + 1; trial.rank = ranked.length > 1 ? place / (ranked.length - 1) : 0; });
}

function colourOf(trial, alpha) {
  return trial.rank === null ? theme.faint : ramp(trial.rank, alpha);
}

const COMPARES = {"<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b};

// A word of the filter: text in any field of a trial, or a comparison, e.g. lr<0.1 or best>=0.5.
function test(word) {
  const [, name, sign, bound] = word.match(/^(.+?)(<=|>=|<|>)([^<>=]+)$/) || [];
  const limit = Number(bound);
  if (name === undefined || Number.isNaN(limit)) return (trial) => trial.words.includes(word);
  const hparam = hparamNames.find((one) => one.toLowerCase() === name);
  const read = (trial) => hparam !== undefined ? trial.hparams[hparam] : {best: trial.best, latest: trial.latest, batches: trial.steps, time: trial.duration, restarts: trial.restarts, trial: trial.id}[name === metricName.toLowerCase() ? "best" : name];
  return (trial) => typeof read(trial) === "number" && COMPARES[sign](read(trial), limit);
}

function passes(trial) {
  if (!view.tests.every((one) => one(trial))) return false;
  if (view.state && trial.state !== view.state) return false;
  for (const test of view.brushes.values()) if (!test(trial)) return false;
  return true;
}

function changed(what) {
  if (what === "filter") {
    view.tests = view.text.toLowerCase().split(/\s+/).filter(Boolean).map(test);
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

function pick(trial) {
  if (!view.picked.delete(trial)) view.picked.add(trial);
  changed("pick");
}

function pickColour(trial) {
  const place = [...view.picked].indexOf(trial);
  return place < 0 ? "" : theme.picks[place % theme.picks.length];
}

function describe(trial) {
  return `trial ${trial.name}, ${stateLabel(trial.state)}` + (trial.best === null ? "" : `, best ${metricName} ${number(trial.best)}, rank ${trial.place}`);
}

// Arrow keys move between the trials of a chart, best first.
function walkable(canvas, reset) {
  canvas.addEventListener("keydown", (event) => {
    const ordered = [...view.shown].sort((a, b) => (a.place ?? Infinity) - (b.place ?? Infinity) || a.index - b.index);
    const at = ordered.indexOf(view.hover), step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (step && ordered.length) {
      hover(ordered[at < 0 ? 0 : (at + step + ordered.length) % ordered.length]);
      announce(describe(view.hover));
    } else if (event.key === "Enter" && view.hover) open(view.hover);
    else if (event.key === " " && view.hover) pick(view.hover);
    else if (event.key === "Escape") { hover(null); if (reset) reset(); }
    else return;
    event.preventDefault();
  });
}

function open(trial) {
  choose(trial);
  byId("trial-card").scrollIntoView({block: "nearest"});
  byId("trial-title").focus({preventScroll: true});
}

function seriesNames() {
  const names = new Set();
  for (const table of data.tables) for (const metric of Object.keys(table.metrics)) names.add(table.group + "\u0000" + metric);
  const order = {validation: 0, training: 1};
  return [...names].map((name) => name.split("\u0000")).sort((a, b) =>
    (b[0] === "validation" && b[1] === metricName) - (a[0] === "validation" && a[1] === metricName) ||
    (order[a[0]] ?? 2) - (order[b[0]] ?? 2) || a[0].localeCompare(b[0]) || a[1].localeCompare(b[1]));
}
