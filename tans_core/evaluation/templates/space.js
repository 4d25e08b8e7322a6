"use strict";
const { places, sources } = JSON.parse(document.getElementById("data").textContent);
const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d"), tip = document.getElementById("tip");
const dark = matchMedia("(prefers-color-scheme: dark)"), hidden = new Set();
const RADIUS = { model: 3, newcomer: 4, task: 7, query: 10 }, count = places.name.length;
// Networks lie below, tasks and the user's own data on top.
const order = [...Array(count).keys()].sort((a, b) => RADIUS[places.kind[a]] - RADIUS[places.kind[b]]);
let view = { scale: 1, x: 0, y: 0 }, wide = 1, high = 1;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (i) => places.source[i] < 0 ? css("--ink") : sources[places.source[i]][dark.matches ? "dark" : "light"];
const shown = (i) => !hidden.has("source " + places.source[i]) && !hidden.has("kind " + places.kind[i]);
const unit = () => Math.min(wide, high) * 0.46 * view.scale;
const place = (i) => [wide / 2 + (places.x[i] - view.x) * unit(), high / 2 - (places.y[i] - view.y) * unit()];

function outline(shape, x, y, r) {
  const path = new Path2D(), corners = { s: [4, Math.PI / 4, 1.25], D: [4, 0, 1.3], "^": [3, Math.PI / 6, 1.35], "*": [10, Math.PI / 10, 1.2] }[shape];
  if (!corners) path.arc(x, y, r, 0, 7);
  for (let k = 0; corners && k < corners[0]; k++) {
    const angle = corners[1] + (2 * Math.PI * k) / corners[0], reach = r * corners[2] * (shape === "*" && k % 2 === 0 ? 0.45 : 1);
    path.lineTo(x + reach * Math.cos(angle), y + reach * Math.sin(angle));
  }
  path.closePath();
  return path;
}

function draw() {
  const ratio = devicePixelRatio || 1, ink = css("--ink"), paper = css("--paper");
  [wide, high] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [wide * ratio, high * ratio];
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const boxes = [], marks = order.filter(shown), grown = Math.min(1.8, Math.sqrt(view.scale)), fonts = getComputedStyle(document.body).fontFamily;
  for (const i of marks) {
    const kind = places.kind[i], [x, y] = place(i), r = RADIUS[kind] * (kind === "model" || kind === "newcomer" ? grown : 1);
    const path = outline(kind === "query" ? "*" : sources[places.source[i]].shape, x, y, r);
    pen.globalAlpha = kind === "model" ? 0.55 : 1;
    pen.fillStyle = pen.strokeStyle = colour(i);
    if (kind !== "newcomer") pen.fill(path);
    pen.lineWidth = kind === "newcomer" ? 1.5 : 1;
    if (kind === "task") pen.strokeStyle = ink;
    if (kind !== "model") pen.stroke(path);
    pen.globalAlpha = 1;
    if (kind === "task" || kind === "query") boxes.push([x - r, y - r, x + r, y + r]);
  }
  for (const i of marks.filter((i) => places.kind[i] === "task" || places.kind[i] === "query").reverse()) label(i, boxes, ink, paper, fonts);
}

// A name goes where it covers no other name and no task; where there is no such place, zooming in makes one.
function label(i, boxes, ink, paper, fonts) {
  const query = places.kind[i] === "query", [x, y] = place(i), text = places.name[i].length > 40 ? places.name[i].slice(0, 39) + "…" : places.name[i];
  pen.font = `${query ? "bold 14px" : "12px"} ${fonts}`;
  const width = pen.measureText(text).width, r = RADIUS[places.kind[i]] + 4;
  for (const [left, top] of [[x + r, y - 7], [x - r - width, y - 7], [x - width / 2, y - r - 14], [x - width / 2, y + r], [x + r, y - r - 12], [x + r, y + r - 2]]) {
    const box = [left - 1, top, left + width + 1, top + 14];
    if ((box[0] < 0 && x >= 0) || (box[2] > wide && x <= wide)) continue;
    if (boxes.some((b) => b[0] < box[2] && b[2] > box[0] && b[1] < box[3] && b[3] > box[1])) continue;
    boxes.push(box);
    pen.lineWidth = 3; pen.lineJoin = "round"; pen.strokeStyle = paper; pen.fillStyle = ink; pen.textBaseline = "middle";
    pen.strokeText(text, left, top + 7); pen.fillText(text, left, top + 7);
    return;
  }
}

function zoom(factor, x = wide / 2, y = high / 2) {
  const scale = factor ? Math.max(0.5, Math.min(60, view.scale * factor)) : 1, base = unit();
  if (!factor) view = { scale: 1, x: 0, y: 0 };
  else { // What is under the pointer stays there.
    const [dx, dy] = [x - wide / 2, high / 2 - y], next = (base * scale) / view.scale;
    view = { scale, x: view.x + dx / base - dx / next, y: view.y + dy / base - dy / next };
  }
  draw();
}

function point(event) {
  const box = canvas.getBoundingClientRect(), [px, py] = [event.clientX - box.left, event.clientY - box.top];
  let best = -1, nearest = 12;
  for (const i of order) {
    const [x, y] = place(i), distance = Math.hypot(x - px, y - py) - RADIUS[places.kind[i]] / 2;
    if (shown(i) && distance <= nearest) [best, nearest] = [i, distance];
  }
  tip.style.display = best < 0 ? "none" : "block";
  if (best < 0) return;
  const lines = [places.name[best]], network = places.accuracy[best] !== null || places.params[best] !== null;
  lines.push({ model: "network", newcomer: "newcomer: admitted after the space was made", task: "task", query: "your data" }[places.kind[best]]);
  if (network) lines.push("home task: " + places.home[best]);
  if (places.source[best] >= 0) lines.push("source: " + sources[places.source[best]].name);
  if (places.accuracy[best] !== null) lines.push(`val accuracy at home: ${(100 * places.accuracy[best]).toFixed(1)}%`);
  if (places.params[best] !== null) lines.push(`parameters: ${places.params[best].toFixed(3)} M`);
  // Names come from outside: they go in as text, never as HTML.
  tip.replaceChildren(...lines.map((line, n) => Object.assign(document.createElement(n ? "div" : "b"), { textContent: line })));
  tip.style.left = Math.max(4, Math.min(px + 14, wide - tip.offsetWidth - 4)) + "px";
  tip.style.top = Math.max(4, Math.min(py + 14, high - tip.offsetHeight - 4)) + "px";
}

function legend() {
  const list = document.getElementById("legend"), kinds = { task: "tasks", model: "networks", newcomer: "newcomers", query: "your data" };
  const rows = Object.keys(kinds).filter((kind) => places.kind.includes(kind)).map((kind) => ["kind " + kind, kinds[kind], null]);
  list.replaceChildren();
  for (const [key, name, source] of [...rows, null, ...sources.map((one, n) => ["source " + n, one.name, one])].map((row) => row || [])) {
    if (!key) { list.append(document.createElement("hr")); continue; }
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.setAttribute("aria-pressed", String(!hidden.has(key)));
    button.onclick = () => { hidden.has(key) ? hidden.delete(key) : hidden.add(key); button.setAttribute("aria-pressed", String(!hidden.has(key))); draw(); };
    const swatch = Object.assign(document.createElement("canvas"), { width: 32, height: 32 }), brush = swatch.getContext("2d");
    const kind = key.slice(5), path = outline(source ? source.shape : kind === "query" ? "*" : "o", 16, 16, source ? 9 : 1.6 * RADIUS[kind]);
    swatch.style.cssText = "width:16px;height:16px;flex:none";
    brush.fillStyle = brush.strokeStyle = source ? source[dark.matches ? "dark" : "light"] : css(kind === "query" ? "--ink" : "--muted");
    brush.lineWidth = 2;
    kind === "newcomer" ? brush.stroke(path) : brush.fill(path);
    button.prepend(swatch);
    list.append(button);
  }
}

let from = null;
canvas.onpointerdown = (event) => { from = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); };
canvas.onpointerup = canvas.onpointercancel = () => { from = null; };
canvas.onpointerleave = () => { tip.style.display = "none"; };
canvas.onpointermove = (event) => {
  if (!from) return point(event);
  view.x -= (event.clientX - from[0]) / unit(); view.y += (event.clientY - from[1]) / unit();
  from = [event.clientX, event.clientY]; tip.style.display = "none"; draw();
};
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); }, { passive: false });
for (const button of document.querySelectorAll("#zoom button")) button.onclick = () => zoom(Number(button.dataset.zoom));
dark.onchange = () => { legend(); draw(); };
new ResizeObserver(draw).observe(canvas);
legend();
draw();
