// The head of the page, the submission, and the setup of all views.
function fact(name, value) {
  return el("div", {class: "fact"}, el("span", {class: "soft"}, name), el("b", {}, value));
}

function drawSummary() {
  const first = data.experiments[0];
  document.title = visible((several ? "experiments " : "experiment ") + data.experiments.map((one) => one.id).join(", ") + " · " + first.name);
  byId("title").replaceChildren(...data.experiments.map((one) => el("span", {class: "experiment"}, el("span", {class: "id"}, "#" + one.id), el("span", {class: "name", title: visible(one.name)}, one.name), state(one.state))));
  byId("why").textContent = visible(data.experiments.map((one) => one.why).filter(Boolean).join("; "));
  const best = trials.find((trial) => trial.place === 1);
  const ended = trials.filter((trial) => ["COMPLETED", "CANCELED", "ERROR"].includes(trial.state));
  const errors = trials.filter((trial) => trial.state === "ERROR");
  byId("facts").replaceChildren(
    fact("trials", `${ended.length} of ${trials.length} ended` + (errors.length ? `, ${errors.length} error` : "")),
    ...(best ? [fact("best " + metricName, el("button", {type: "button", class: "link", on: {click: () => open(best)}}, `${number(best.best)} · trial ${best.name}`))] : []),
    fact("batches", number(trials.reduce((sum, trial) => sum + trial.steps, 0))),
    fact("training time", duration(trials.reduce((sum, trial) => sum + (trial.duration || 0), 0))),
    fact("started", when(first.created)),
    ...(first.host ? [fact("host", first.host)] : []));
}

function drawSubmitted() {
  byId("submitted").replaceChildren(...data.experiments.map((one) => {
    const head = several ? `#${one.id} ` : "";
    const texts = [["config as resolved", JSON.stringify(one.config, null, 2)], ["Dockerfile", one.dockerfile]];
    return el("div", {}, el("p", {class: "soft"}, head + (one.tag ? "image " : one.local ? "trained in this host's Python, without an image" : ""), one.tag ? el("code", {}, one.tag) : null, one.image ? el("code", {}, " " + one.image) : null),
      texts.filter(([, text]) => text).map(([title, text]) => el("details", {}, el("summary", {}, head + title), el("pre", {}, visibleNode(text)))));
  }));
}

function redraw() {
  readTheme();
  table.rows.clear();
  drawCompare();
  changed("filter");
}

function start() {
  readTheme();
  rankTrials();
  drawSummary();
  drawSubmitted();
  setUpCurves();
  setUpParallel();
  setUpScatter();
  setUpTable();
  setUpCompare();
  setUpTrial();
  byId("notes").replaceChildren(...data.notes.map((note) => el("li", {}, note)));
  byId("made").textContent = `detbuild ${visible(data.version)} · ${when(data.made)}`;
  redraw();
  if (trials.length === 1) choose(trials[0]);
  const print = (on) => () => { document.documentElement.classList.toggle("print", on); redraw(); };
  window.addEventListener("beforeprint", print(true));
  window.addEventListener("afterprint", print(false));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let pending = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(() => changed("filter")); });
  document.documentElement.dataset.ready = "yes";
}

start();
