// A table of trials that sorts; its filters apply to all views.
const table = {sort: "best", down: false, rows: new Map(), all: false};
const FIRST_ROWS = 200;

function columns() {
  return [
    {key: "trial", title: "trial", of: (t) => t.index, cell: (t) => t.name},
    ...(several ? [{key: "experiment", title: "experiment", of: (t) => t.of.name}] : []),
    {key: "state", title: "state", of: (t) => t.state, cell: (t) => state(t.state)},
    {key: "best", title: "best " + (metricName || "metric"), num: true, of: (t) => t.best},
    {key: "latest", title: "latest", num: true, of: (t) => t.latest},
    {key: "steps", title: "batches", num: true, of: (t) => t.steps},
    {key: "duration", title: "time", num: true, of: (t) => t.duration, cell: (t) => duration(t.duration)},
    {key: "restarts", title: "restarts", num: true, of: (t) => t.restarts},
    {key: "gpus", title: "GPU", of: (t) => t.gpus.join(", ")},
    {key: "checkpoints", title: "checkpoints", num: true, of: (t) => t.checkpoints.length},
    ...hparamNames.map((name) => ({key: "hp:" + name, title: name, hp: true, num: trials.some((t) => typeof t.hparams[name] === "number"), of: (t) => t.hparams[name] ?? null})),
  ];
}

function compare(a, b) {
  if (a === null || b === null || a === undefined || b === undefined) return (a === null || a === undefined) - (b === null || b === undefined);
  if (typeof a === "number" && typeof b === "number") return (table.down ? -1 : 1) * (a - b);
  return (table.down ? -1 : 1) * String(a).localeCompare(String(b), "en", {numeric: true});
}

function setUpTable() {
  table.columns = columns();
  table.down = !data.experiments[0].smaller_is_better;
  const states = unique(trials.map((trial) => trial.state)).sort();
  byId("state-filter").append(el("option", {value: ""}, "all states"), ...states.map((name) => el("option", {value: name}, stateLabel(name))));
  byId("state-filter").addEventListener("change", (event) => { view.state = event.target.value; changed("filter"); });
  byId("text-filter").addEventListener("input", (event) => { view.text = event.target.value.trim(); changed("filter"); });
  byId("clear").addEventListener("click", clearFilters);
  byId("table-csv").addEventListener("click", () => download("trials.csv", tableRows()));
  byId("more").addEventListener("click", () => { table.all = true; drawTable(); });
  listeners.push((what) => what === "filter" ? drawTable() : markRows());
  drawHead();
}

function ordered() {
  const column = table.columns.find((one) => one.key === table.sort);
  return [...view.shown].sort((a, b) => compare(column.of(a), column.of(b)) || a.index - b.index);
}

function tableRows() {
  const plain = table.columns.map((column) => column.key === "trial" ? (trial) => trial.name : column.of);
  return [table.columns.map((column) => column.title), ...ordered().map((trial) => plain.map((read) => read(trial)))];
}

function clearFilters() {
  view.text = view.state = byId("text-filter").value = byId("state-filter").value = "";
  view.brushes.clear();
  for (const axis of parallel.axes) axis.brush = null;
  changed("filter");
}

function drawHead() {
  byId("trial-head").replaceChildren(...table.columns.map((column) => {
    const sorted = table.sort === column.key;
    const turn = () => { table.down = sorted ? !table.down : false; table.sort = column.key; drawHead(); drawTable(); };
    return el("th", {class: column.num ? "num" : "", scope: "col", "aria-sort": sorted ? (table.down ? "descending" : "ascending") : "none"},
      el("button", {type: "button", on: {click: turn}}, column.title, el("span", {class: "arrow"}, sorted ? (table.down ? " ↓" : " ↑") : "")));
  }));
}

function row(trial) {
  if (table.rows.has(trial)) return table.rows.get(trial);
  const swatch = el("span", {class: "swatch"});
  const mark = el("input", {type: "checkbox", checked: view.picked.has(trial), "aria-label": "select trial " + trial.name, on: {click: (event) => event.stopPropagation(), change: () => pick(trial)}});
  const cells = table.columns.map((column, i) => {
    const content = column.cell ? column.cell(trial) : show(column.of(trial));
    return el("td", {class: (column.num ? "num" : "") + (column.hp ? " hp" : "")}, i === 0 ? [mark, swatch] : null, content, column.key === "best" && trial.place === 1 ? el("span", {class: "crown"}, "best") : null);
  });
  const made = el("tr", {tabIndex: 0, on: {pointerenter: () => hover(trial), pointerleave: () => hover(null), click: () => open(trial), keydown: (event) => { if (event.key === "Enter") open(trial); }}}, cells);
  table.rows.set(trial, made);
  return made;
}

function drawTable() {
  const all = ordered();
  const some = table.all ? all : all.slice(0, FIRST_ROWS);
  byId("trial-rows").replaceChildren(...some.map(row));
  byId("more").hidden = some.length === all.length;
  byId("more").textContent = `show all ${all.length}`;
  byId("count").textContent = view.shown.length === trials.length ? `${trials.length} trial${trials.length === 1 ? "" : "s"}` : `${view.shown.length} of ${trials.length} trials`;
  byId("clear").hidden = view.shown.length === trials.length && !view.text && !view.state && !view.brushes.size;
  markRows();
}

function markRows() {
  for (const [trial, made] of table.rows) {
    made.classList.toggle("hover", trial === view.hover);
    made.classList.toggle("chosen", trial === view.chosen);
    made.querySelector("input").checked = view.picked.has(trial);
    made.querySelector(".swatch").style.background = pickColour(trial) || colourOf(trial, 1);
  }
}
