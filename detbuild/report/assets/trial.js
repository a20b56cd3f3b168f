// Details of one trial: hyperparameters, checkpoints, runs with errors and hints, the end of its log.
function pairs(rows) {
  return el("dl", {}, rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function failureOf(trial) {
  return [...trial.runs].reverse().find((run) => run.message);
}

function runLine(run) {
  return el("li", {}, el("b", {}, "run " + run.run), " " + run.outcome.replaceAll("_", " ") + (run.exit_code ? ", exit code " + run.exit_code : "") + (run.seconds === null ? "" : ", " + duration(run.seconds)),
    run.message ? el("pre", {class: "message"}, visibleNode(run.message)) : null,
    run.hint ? el("p", {class: "hint"}, el("b", {}, "hint "), run.hint) : null);
}

function visibleNode(text) {
  return document.createTextNode(visibleLines(text));
}

function drawTrial() {
  const trial = view.chosen;
  byId("trial-card").hidden = !trial;
  if (!trial) return;
  byId("trial-title").replaceChildren(el("span", {}, "Trial " + trial.name), state(trial.state));
  const parts = [
    section("Overview", pairs([["best " + (metricName || "metric"), show(trial.best)], ["latest", show(trial.latest)], ["batches", show(trial.steps)], ["time", duration(trial.duration)], ["restarts", show(trial.restarts)], ["GPU", trial.gpus.join(", ") || "–"], ["seed", show(trial.seed)], ...(trial.why ? [["reason", trial.why]] : [])])),
    section("Hyperparameters", pairs(Object.entries(trial.hparams).map(([name, value]) => [name, show(value)]))),
    section("Runs", el("ul", {class: "runs"}, trial.runs.map(runLine))),
    section("Checkpoints", el("ul", {class: "checkpoints"}, trial.checkpoints.map((one) => el("li", {}, el("code", {}, one.uuid), ` batch ${one.steps}, ${bytes(one.size)}` + (one.metric === null ? "" : `, ${metricName} ${number(one.metric)}`) + (one.state === "COMPLETED" ? "" : `, ${one.state}`))))),
  ];
  byId("trial-parts").replaceChildren(...parts);
  byId("trial-log-box").hidden = !trial.log.text;
  byId("copy-config").hidden = !trial.of.config.searcher;
  byId("trial-log-note").textContent = trial.log.cut ? `the last ${bytes(trial.log.text.length)}; full log: detbuild logs ${trial.of.id} --trial ${trial.id}` : "";
  trial.lines = trial.lines || visibleLines(trial.log.text).split("\n");
  filterLog();
}

function section(title, content) {
  return el("section", {}, el("h3", {}, title), content.childNodes.length ? content : el("p", {class: "soft"}, "none"));
}

function filterLog() {
  const word = byId("log-filter").value.toLowerCase();
  if (!view.chosen) return;
  const lines = view.chosen.lines;
  byId("trial-log").textContent = (word ? lines.filter((line) => line.toLowerCase().includes(word)) : lines).join("\n");
}

const FIRST_FAILURES = 20;

// Group trials with the same failure.
function drawFailures() {
  const groups = new Map();
  for (const trial of trials.filter((one) => one.state === "ERROR")) {
    const run = failureOf(trial) || {message: trial.why, hint: ""};
    const key = JSON.stringify([run.message, run.hint]);
    groups.set(key, [...(groups.get(key) || []), trial]);
  }
  byId("failures-card").hidden = !groups.size;
  byId("failures").replaceChildren(...[...groups].slice(0, FIRST_FAILURES).map(([key, failed]) => {
    const [message, hint] = JSON.parse(key);
    const named = failed.slice(0, FIRST_FAILURES).map((trial) => el("button", {type: "button", class: "link", on: {click: () => open(trial)}}, trial.name));
    return el("li", {}, failed.length > 1 ? `${failed.length} trials: ` : "trial ", named.flatMap((one, i) => i ? [", ", one] : [one]), failed.length > FIRST_FAILURES ? " …" : null,
      el("pre", {class: "message"}, visibleNode(message)), hint ? el("p", {class: "hint"}, el("b", {}, "hint "), hint) : null);
  }));
  byId("failures-note").textContent = groups.size > FIRST_FAILURES ? `${FIRST_FAILURES} of ${groups.size} kinds` : "";
}

function setUpTrial() {
  listeners.push((what) => { if (what === "choice") drawTrial(); });
  byId("log-filter").addEventListener("input", filterLog);
  byId("trial-close").addEventListener("click", () => choose(null));
  byId("copy-hparams").addEventListener("click", (event) => copy(event.target, JSON.stringify(view.chosen.nested, null, 2)));
  byId("copy-config").addEventListener("click", (event) => copy(event.target, JSON.stringify(configOf(view.chosen), null, 2)));
  drawFailures();
}
