// Two plots as SVG, drawn at the width that they have, so that their text is never scaled.

import { minus } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const NEAR = 1.02;
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 14, 14, 40];

function shape(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Return round values within a range, at most `most` of them; on a logarithmic axis 1, 2 and 5 of each decade. */
function ticks(low, high, most, logarithmic = false) {
  if (logarithmic) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      values.push(...[1, 2, 5].map((digit) => digit * 10 ** power));
    }
    const within = values.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    const tens = within.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
    return within.length <= most || tens.length < 2 ? within.slice(0, most) : tens;
  }
  const rough = (high - low) / most || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5].find((digit) => digit * unit >= rough) ?? 10);
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) values.push(value);
  return values.map((value) => Number(value.toPrecision(6)));
}

function frame(svg, height, { x, y, xTicks, yTicks, xName, yName }) {
  const width = Math.max(260, svg.clientWidth || svg.parentElement.clientWidth || 600);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const toX = (value) => LEFT + x(value) * (width - LEFT - RIGHT);
  const toY = (value) => height - BOTTOM - y(value) * (height - TOP - BOTTOM);
  for (const value of yTicks) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: toY(value), y2: toY(value) }));
    svg.append(shape("text", { x: LEFT - 6, y: toY(value) + 4, "text-anchor": "end" }, minus(String(value))));
  }
  for (const value of xTicks) {
    svg.append(shape("text", { x: toX(value), y: height - BOTTOM + 17, "text-anchor": "middle" }, String(value)));
  }
  svg.append(shape("text", { class: "axis", x: width - RIGHT, y: height - 6, "text-anchor": "end" }, xName));
  svg.append(shape("text", { class: "axis", x: 4, y: 11 }, yName));
  return { toX, toY, width };
}

const path = (points) => points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/** Return the networks than which none of the same compute (within 2 %) or less has a higher score, cheapest first. */
export function front(networks) {
  const better = (one, other) => other.score > one.score && other.macs_m <= one.macs_m * NEAR;
  const best = networks.filter((one) => !networks.some((other) => better(one, other)));
  return best.sort((one, other) => one.macs_m - other.macs_m || one.score - other.score);
}

/** Draw score against MACs: all networks, those within the limits, and the front of these. */
export function drawFront(svg, all, fitting, chosen) {
  const [macs, scores] = [all.map((one) => one.macs_m), all.map((one) => one.score)];
  const [least, most] = [Math.min(...macs) / 1.15, Math.max(...macs) * 1.15];
  const room = (Math.max(...scores) - Math.min(...scores)) * 0.08 || 1;
  const [low, high] = [Math.min(...scores) - room, Math.max(...scores) + room];
  const { toX, toY, width } = frame(svg, matchMedia("(max-width: 46rem)").matches ? 320 : 430, {
    x: (value) => Math.log(value / least) / Math.log(most / least),
    y: (value) => (value - low) / (high - low),
    xTicks: ticks(least, most, 8, true),
    yTicks: ticks(low, high, 5),
    xName: "M MACs of one image (logarithmic)",
    yName: "score",
  });
  const within = new Set(fitting.map((one) => one.model));
  const along = front(fitting);
  const onFront = new Set(along.map((one) => one.model));
  const order = (one) => (within.has(one.model) ? 1 : 0) + (onFront.has(one.model) ? 1 : 0);
  const steps = along.flatMap((one, index) => {
    const point = [toX(one.macs_m), toY(one.score)];
    return index ? [[point[0], toY(along[index - 1].score)], point] : [point];
  });
  svg.append(shape("polyline", { class: "front", points: path(steps) }));
  const drawn = new Map(all.map((one) => [one.model, one]));
  for (const one of fitting) drawn.set(one.model, one);
  for (const one of [...drawn.values()].sort((a, b) => order(a) - order(b))) {
    const kind = ["out", "in", "best"][order(one)];
    const point = shape("circle", {
      class: kind,
      cx: toX(one.macs_m),
      cy: toY(one.score),
      r: kind === "best" ? 5 : 3.5,
    });
    point.append(
      shape("title", {}, `${one.model}: score ${one.score.toFixed(2)}, ${one.macs_m.toPrecision(3)} M MACs`),
    );
    svg.append(point);
  }
  if (!chosen) return;
  const [x, y] = [toX(chosen.macs_m), toY(chosen.score)];
  svg.append(shape("circle", { class: "chosen", cx: x, cy: y, r: 9 }));
  const label = shape("text", { class: "name", y: Math.max(12, y - 13) }, chosen.model);
  svg.append(label);
  const length = label.getComputedTextLength();
  label.setAttribute("x", Math.max(4, Math.min(x - length / 2, width - RIGHT - length)));
}

const MAP_PAD = 24;
const STAR = "M0-13 3.4-4.1 12.9-4 5.3 1.7 8 10.8 0 5.6-8 10.8-5.3 1.7-12.9-4-3.4-4.1Z";

/** Draw the images among tasks and networks. `first`, `within`: sets of networks; `chosen`: one of them, or none. */
export function drawMap(svg, places, { first, within, chosen }) {
  const width = Math.max(260, svg.clientWidth || svg.parentElement.clientWidth || 600);
  const height = Math.round(Math.min(width, 480));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const toX = (place) => width / 2 + place.x * (width / 2 - MAP_PAD);
  const toY = (place) => height / 2 - place.y * (height / 2 - MAP_PAD);
  const near = places.filter((one) => one.kind === "task" && one.similarity !== null);
  const nearest = [...near].sort((one, other) => other.similarity - one.similarity).map((one) => one.name);
  const words = nearest.length ? `The nearest tasks are ${nearest.join(", ")}. The table below lists them.` : "";
  svg.replaceChildren(
    shape("title", { id: "map-title" }, "Your images among tasks and networks"),
    shape("desc", { id: "map-words" }, words),
  );
  const draw = (kind, attributes, one) => {
    const mark = shape(kind, attributes);
    mark.append(shape("title", {}, one.name));
    svg.append(mark);
  };
  const order = (one) => (within.has(one.name) ? 1 : 0) + (first.has(one.name) ? 1 : 0);
  const networks = places.filter((one) => one.kind === "network").sort((one, other) => order(one) - order(other));
  for (const one of networks) {
    const kind = ["out", "in", "best"][order(one)];
    draw("circle", { class: kind, cx: toX(one), cy: toY(one), r: kind === "best" ? 5 : 3 }, one);
  }
  for (const one of places.filter((place) => place.kind === "task")) {
    const kind = near.includes(one) ? "task near" : "task";
    draw("rect", { class: kind, x: toX(one) - 5, y: toY(one) - 5, width: 10, height: 10 }, one);
  }
  const query = places.find((one) => one.kind === "query");
  draw("path", { class: "query", d: STAR, transform: `translate(${toX(query)} ${toY(query)})` }, query);
  const named = [...near, ...networks.filter((one) => one.name === chosen)].sort((a, b) => toY(a) - toY(b));
  let lowest = 0;
  for (const one of named) {
    lowest = Math.max(toY(one) + 4, lowest + 14); // a line for each name
    const label = shape("text", { class: one.kind === "network" ? "name" : "", y: lowest }, one.name);
    svg.append(label);
    const length = label.getComputedTextLength();
    const beside = one.kind === "network" ? 14 : 10; // past its ring
    const right = toX(one) + beside;
    label.setAttribute("x", right + length > width ? Math.max(2, toX(one) - beside - length) : right);
  }
  const ring = networks.find((one) => one.name === chosen);
  if (ring) svg.append(shape("circle", { class: "chosen", cx: toX(ring), cy: toY(ring), r: 9 }));
}

/** Draw a learning curve: validation accuracy from 0 to 1, and training loss by its highest value. */
export function drawCurve(svg, curve, epochs) {
  const last = Math.max(epochs || 1, ...curve.map((one) => one.epoch));
  const { toX, toY } = frame(svg, 260, {
    x: (value) => value / last,
    y: (value) => value,
    xTicks: ticks(0, last, 8),
    yTicks: [0, 0.25, 0.5, 0.75, 1],
    xName: "epoch",
    yName: "",
  });
  const losses = curve.map((one) => one.train_loss).filter(Number.isFinite);
  const highest = Math.max(...losses, 1e-9);
  const rising = curve.filter((one) => Number.isFinite(one.val_accuracy));
  const falling = curve.filter((one) => Number.isFinite(one.train_loss));
  svg.append(
    shape("polyline", { class: "loss", points: path(falling.map((o) => [toX(o.epoch), toY(o.train_loss / highest)])) }),
  );
  svg.append(
    shape("polyline", { class: "accuracy", points: path(rising.map((o) => [toX(o.epoch), toY(o.val_accuracy)])) }),
  );
  for (const one of rising)
    svg.append(shape("circle", { class: "accuracy", cx: toX(one.epoch), cy: toY(one.val_accuracy), r: 4 }));
  return highest;
}
