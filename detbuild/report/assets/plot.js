// Shared by the canvases: pixel density, colours, scales and ticks.
const theme = {};

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "soft", "faint", "line", "card", "accent", "warm"]) {
    theme[name] = style.getPropertyValue("--" + name).trim();
  }
  theme.picks = ["--pick-0", "--pick-1", "--pick-2", "--pick-3", "--pick-4", "--pick-5"].map((name) => style.getPropertyValue(name).trim());
  theme.ramp = ["--ramp-0", "--ramp-1", "--ramp-2", "--ramp-3"].map((name) => hex(style.getPropertyValue(name).trim()));
}

function hex(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

// 0 is the best trial, 1 the worst.
function ramp(share, alpha) {
  const place = Math.min(0.9999, Math.max(0, share)) * (theme.ramp.length - 1);
  const at = Math.floor(place), rest = place - at;
  const mixed = theme.ramp[at].map((from, i) => Math.round(from + (theme.ramp[at + 1][i] - from) * rest));
  return `rgba(${mixed.join(",")},${alpha})`;
}

function fit(canvas) {
  const box = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  return {pen, width: box.width, height: box.height};
}

function linear(low, high, from, to) {
  const span = high - low || 1;
  const scale = (value) => from + (value - low) / span * (to - from);
  scale.ticks = (count) => linearTicks(low, high, count);
  scale.invert = (pixel) => low + (pixel - from) / (to - from || 1) * span;
  return scale;
}

function linearTicks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

function logarithmic(low, high, from, to) {
  const scale = (value) => value > 0 ? inner(Math.log10(value)) : NaN;
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  scale.ticks = (count) => logTicks(low, high, count);
  scale.invert = (pixel) => 10 ** inner.invert(pixel);
  return scale;
}

function logTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) return linearTicks(low, high, count);
  const every = Math.max(1, Math.ceil((last - first + 1) / count));
  const found = [];
  for (let power = first; power <= last; power += every) found.push(10 ** power);
  return found;
}

function categorical(values, from, to) {
  const place = new Map(values.map((value, i) => [value, values.length === 1 ? 0.5 : i / (values.length - 1)]));
  const scale = (value) => from + place.get(value) * (to - from);
  scale.ticks = () => values;
  return scale;
}

function shorten(pen, text, room) {
  text = visible(text);
  if (pen.measureText(text).width <= room) return text;
  while (text.length > 1 && pen.measureText(text + "…").width > room) text = text.slice(0, -1);
  return text + "…";
}

// Keep both ends, so that names that differ at either end stay distinct.
function shortenMiddle(pen, text, room) {
  const chars = [...visible(text)];
  if (pen.measureText(chars.join("")).width <= room) return chars.join("");
  for (let kept = Math.min(chars.length - 1, 60); kept > 1; kept--) {
    const cut = chars.slice(0, kept >> 1).join("") + "…" + chars.slice(chars.length - (kept - (kept >> 1))).join("");
    if (pen.measureText(cut).width <= room) return cut;
  }
  return "…";
}

function label(pen, text, x, y, options) {
  pen.fillStyle = options.colour || theme.soft;
  pen.textAlign = options.align || "left";
  pen.textBaseline = options.baseline || "middle";
  pen.fillText(text, x, y);
}

function grid(pen, frame, xs, ys, count) {
  pen.lineWidth = 1;
  pen.strokeStyle = theme.line;
  for (const tick of ys.ticks(count || 5)) {
    const y = Math.round(ys(tick)) + 0.5;
    pen.beginPath(); pen.moveTo(frame.left, y); pen.lineTo(frame.right, y); pen.stroke();
    label(pen, show(tick), frame.left - 8, y, {align: "right"});
  }
  for (const tick of xs.ticks(Math.max(2, Math.floor((frame.right - frame.left) / 90)))) {
    label(pen, shorten(pen, show(tick), 90), xs(tick), frame.bottom + 14, {align: "center"});
  }
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

function near(event) {
  const box = event.target.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
