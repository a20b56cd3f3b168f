// Exports: tables as CSV, a trial's hyperparameters and config as text.
const FORMULA = /^[=+\-@\t\r]/;

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  let text = visible(typeof value === "object" ? JSON.stringify(value) : value);
  if (FORMULA.test(text)) text = "'" + text; // a spreadsheet would run it as a formula
  return /[",]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function download(name, rows) {
  const text = rows.map((row) => row.map(csvCell).join(",") + "\n").join("");
  const link = el("a", {href: URL.createObjectURL(new Blob([text], {type: "text/csv"})), download: name.replace(/[^\w.-]+/g, "_")});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    button.textContent = "copy failed";
  }
  announce(button.textContent);
  setTimeout(() => { button.textContent = before; }, 1500);
}

// Replace each range of the config by the value that the trial drew.
function drawn(declared, value) {
  const inner = declared !== null && typeof declared === "object" && !Array.isArray(declared) && typeof own(declared, "type") !== "string";
  if (!inner || value === null || typeof value !== "object") return {type: "const", val: value};
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, drawn(own(declared, key) ?? null, one)]));
}

// A config that trains only this trial.
function configOf(trial) {
  const config = trial.of.config, {metric, smaller_is_better, max_length} = config.searcher;
  const searcher = {name: "single", metric, smaller_is_better, ...(max_length ? {max_length} : {})};
  return {...config, hyperparameters: drawn(config.hyperparameters || {}, trial.nested), searcher};
}
