// Comparison of the selected trials.
function drawCompare() {
  const picked = [...view.picked];
  byId("compare-card").hidden = !picked.length;
  const head = el("tr", {}, el("th", {scope: "col"}, ""), picked.map((trial) => {
    const swatch = el("span", {class: "swatch"});
    swatch.style.background = pickColour(trial);
    return el("th", {scope: "col"}, el("button", {type: "button", on: {click: () => open(trial)}}, swatch, "trial " + trial.name));
  }));
  const rows = table.columns.filter((column) => column.key !== "trial").map((column) => {
    const values = picked.map(column.of);
    const differs = unique(values.map((value) => JSON.stringify(value))).length > 1;
    return el("tr", {class: differs ? "differs" : ""}, el("th", {scope: "row"}, column.title),
      picked.map((trial, i) => el("td", {}, column.cell ? column.cell(trial) : show(values[i]))));
  });
  byId("compare").replaceChildren(el("thead", {}, head), el("tbody", {}, rows));
}

function setUpCompare() {
  listeners.push((what) => { if (what === "pick") { drawCompare(); markRows(); } });
  byId("compare-clear").addEventListener("click", () => { view.picked.clear(); changed("pick"); });
}
