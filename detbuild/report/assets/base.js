// Elements, texts and numbers. Data reaches the page only through textContent and canvas text.
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function escapeChar(char) {
  const code = char.codePointAt(0);
  return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
}

// Show control characters, and those that reorder or hide text, as escapes.
function visible(value) {
  return String(value).replace(UNSAFE, escapeChar);
}

function visibleLines(text) {
  return text.replace(/\x1b\[[0-9;]*[A-Za-z]/g, "").split("\n")
    .map((line) => line.replace(/\r$/, "").split("\r").pop().split("\t").map(visible).join("\t")).join("\n");
}

function el(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "class") node.className = value;
    else if (key === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

function show(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return number(value);
  if (typeof value === "object") return visible(JSON.stringify(value));
  return visible(value);
}

function number(value) {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US").replaceAll(",", "\u2009");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(3).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(5)));
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes + " min " + Math.round(seconds % 60) + " s";
  return Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

function bytes(count) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000) return (unit === "B" ? count : count.toFixed(1)) + " " + unit;
    count /= 1000;
  }
  return count.toFixed(1) + " TB";
}

function when(seconds) {
  return seconds === null ? "–" : new Date(seconds * 1000).toLocaleString("sv-SE").slice(0, 16);
}

const STOPPING = {STOPPING_PAUSED: "stopping (pause)", STOPPING_CANCELED: "stopping (cancel)", STOPPING_KILLED: "stopping (kill)", STOPPING_ERROR: "stopping (error)"};

function stateLabel(name) {
  return STOPPING[name] || name.toLowerCase();
}

function state(name) {
  return el("span", {class: "state state-" + name.toLowerCase().replace(/[^a-z]/g, "-")}, stateLabel(name));
}

// Look up a name that comes from data: a metric may be called "constructor".
function own(mapping, name) {
  return Object.hasOwn(mapping, name) ? mapping[name] : undefined;
}

function announce(text) {
  byId("spoken").textContent = visible(text);
}

function unique(values) {
  return [...new Set(values)];
}
