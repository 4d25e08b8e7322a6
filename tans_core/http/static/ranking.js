// The networks for the images that were checked: limits, plot, and the ranked list with its reasons.

import { call } from "./api.js";
import { $, guarded, h, minus, name, number, percent, reveal, say, several, signed } from "./dom.js";
import { drawFront, drawMap, front } from "./plots.js";
import { prepare } from "./training.js";

const MOST = 500;
const PAGE = 10;
const LOW_TRUST = 0.5;
const PAUSE_MS = 150;
const LONG_PAUSE_MS = 1000; // the images are sent again

/** `source`: the images and their query. `all`: without limits; `fitting`: within them. `cards`: by network. */
const state = { source: null, all: [], fitting: [], cards: new Map(), map: null, shown: PAGE, abort: null };

/** Rank networks for images: `{name, body, query, pictures}`. */
export async function rank(source) {
  Object.assign(state, { source, shown: PAGE, map: null });
  await guarded("networks", async () => {
    reveal("networks");
    say("networks", "Ranking …");
    const [found, cards] = await Promise.all([search({}), allCards()]);
    Object.assign(state, { all: found, fitting: found, cards });
    makeLimits();
    $("refine").checked = false;
    show();
    const map = await call("/v1/map", { method: "POST", body: asQuery(source) });
    if (state.source === source) state.map = map;
    showMap();
  });
}

const asQuery = (source) => new Blob([JSON.stringify(source.query)], { type: "application/json" });

async function allCards() {
  const cards = new Map();
  for (let total = 1; cards.size < total;) {
    const page = await call("/v1/models", { query: { limit: 1000, offset: cards.size } });
    if (!page.models.length) break; // another release is in production now
    for (const card of page.models) cards.set(card.id, card);
    choices($("latency-profile"), "any", page.latency_profiles, String);
    total = page.total;
  }
  return cards;
}

async function search(limited, refine = 0) {
  state.abort?.abort();
  state.abort = new AbortController();
  const { signal } = state.abort;
  const body = refine ? state.source.body : asQuery(state.source);
  const query = { ...limited, top_k: MOST, ...(refine ? { refine } : {}) };
  const progress = refine
    ? (share) => say("networks", share < 1 ? "Sending the images …" : "Running 8 networks …")
    : undefined;
  const answer = await call("/v1/retrieve", { method: "POST", query, body, progress, signal });
  return answer.candidates;
}

/* Limits */

const COSTS = { params: "params_m", macs: "macs_m" };
const range = (column) => {
  const values = state.all.map((one) => one[column]);
  return [Math.min(...values), Math.max(...values)];
};

/** The value of a slider: null at its end, where it limits nothing; logarithmic in between. */
function limit(id) {
  const share = $(id).valueAsNumber / 100;
  const [least, most] = range(COSTS[id]);
  // Rounded up, so that the smallest network stays at the slider's start.
  return share === 1 ? null : Number((least * (most / least) ** share * 1.005).toPrecision(3));
}

function makeLimits() {
  const cards = state.all.map((one) => state.cards.get(one.model)).filter(Boolean);
  const licences = [...new Set(state.all.flatMap((one) => one.licence.split(/\s+(?:AND|OR)\s+|[()]/)))]
    .filter(Boolean)
    .sort();
  const families = [...new Set(cards.map((card) => card.family))].sort();
  const sizes = [...new Set(cards.map((card) => card.preprocess.image_size_px))].sort((a, b) => a - b);
  fill($("families"), families);
  fill($("licences"), licences);
  fill($("homes"), [...new Set(state.all.map((one) => one.home_task))].sort());
  choices($("input-size"), "any", sizes.slice(0, -1), (size) => `at most ${size} px`);
  $("latency").hidden = $("latency-profile").length < 2;
  $("families").hidden = families.length < 2;
  noLimits();
}

function fill(fieldset, values) {
  const boxes = values.map((value) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", value, checked: true }), h("span", {}, name(value))),
  );
  fieldset.replaceChildren(fieldset.querySelector("legend"), ...boxes);
}

function choices(select, none, values, text) {
  const options = values.map((value) => h("option", { value: String(value) }, text(value)));
  select.replaceChildren(h("option", { value: "" }, none), ...options);
}

const checked = (id) => [...$(id).querySelectorAll("input:checked")].map((box) => box.value);
const unchecked = (id) => [...$(id).querySelectorAll("input:not(:checked)")].map((box) => box.value);

function noLimits() {
  const refine = $("refine").checked;
  $("limits").reset();
  $("refine").checked = refine;
  sayLimits();
}

/** The limits and the order, as the service takes them; null for what is not limited. */
function limits() {
  const [profile, most] = [$("latency-profile").value, $("latency-most").value];
  const timed = profile && Number(most) > 0;
  return {
    ...Object.fromEntries(Object.keys(COSTS).map((id) => [`max_${COSTS[id]}`, limit(id)])),
    min_home_accuracy: $("home-accuracy").valueAsNumber / 100 || null,
    max_input_size_px: $("input-size").value || null,
    latency_profile: timed ? profile : null,
    max_latency_ms: timed ? most : null,
    licences: unchecked("licences").length ? checked("licences").join(",") : null,
    not_home: unchecked("homes").join(",") || null,
    prefer: $("prefer").value,
    per_task: Number($("per-task").value) >= 1 ? $("per-task").value : null,
  };
}

function sayLimits() {
  for (const id of Object.keys(COSTS)) {
    const value = limit(id);
    const text = value === null ? `any (up to ${number(range(COSTS[id])[1])} M)` : `at most ${number(value)} M`;
    $(`${id}-value`).textContent = text;
    $(id).setAttribute("aria-valuetext", text);
  }
  const floor = $("home-accuracy").valueAsNumber;
  const least = floor ? `at least ${floor} % on its own task, which is not yours` : "any";
  $("home-accuracy-value").textContent = least;
  $("home-accuracy").setAttribute("aria-valuetext", least);
  const refused = unchecked("licences").length;
  $("licence-count").textContent = refused
    ? `Licences: ${checked("licences").length} accepted, ${refused} not`
    : "Licences: all accepted";
  const left = unchecked("homes").length;
  $("home-count").textContent = left ? `Home tasks: all but ${left}` : "Home tasks: all";
}

async function rankAgain() {
  sayLimits();
  await guarded("networks", async () => {
    const families = new Set(checked("families"));
    state.fitting = [];
    const refine = $("refine").checked ? 8 : 0;
    const searching = search(limits(), refine);
    const { signal } = state.abort; // of this search: a later one has its own
    try {
      const found = await searching;
      const all = !unchecked("families").length;
      state.fitting = found.filter((one) => all || families.has(state.cards.get(one.model)?.family));
    } finally {
      if (!signal.aborted) show();
    }
  });
}

let pause = 0;
function soon() {
  sayLimits();
  clearTimeout(pause);
  pause = setTimeout(rankAgain, $("refine").checked ? LONG_PAUSE_MS : PAUSE_MS);
}

/* The list */

function show() {
  const { all, fitting, shown } = state;
  const first = fitting[0];
  const thinned = $("prefer").value !== "accurate" || $("per-task").value; // of those within the limits
  const most = all.length === MOST ? `the best ${MOST}` : several(all.length, "network");
  say(
    "networks",
    first
      ? `${fitting.length} of ${most} ${thinned ? "left" : "within the limits"}. First: ${first.model}.`
      : "No network is within these limits.",
  );
  const far = first && first.trust < LOW_TRUST;
  $("far").hidden = !far;
  if (far) {
    $("far").textContent =
      `These images are unlike the data sets that TANS learnt from (trust ${percent(first.trust)}), so the fit ` +
      "counts little. Run the first 8 on the images to rank by what they can do there.";
  }
  drawFront($("front"), all, fitting, first);
  $("front").setAttribute(
    "aria-label",
    `Score against multiply-accumulates of ${fitting.length} networks. The list below has the figures.`,
  );
  const best = new Set(front(fitting).map((one) => one.model));
  const visible = fitting.slice(0, shown);
  // The interval is that of predicted scores; once networks were run, the scores are others.
  const probed = fitting.some((one) => one.probe !== null);
  $("interval-words").hidden = probed;
  const half = probed || !first ? 0 : first.plus_minus;
  const low = Math.min(...visible.map((one) => one.score)) - half;
  const high = Math.max(...visible.map((one) => one.score)) + half;
  const range = { low, width: Math.max(high - low, 1e-9), half };
  $("ranking").replaceChildren(...visible.map((one, index) => item(one, index, best.has(one.model), range)));
  $("more").hidden = fitting.length <= shown;
  showMap();
}

/** The map of the images, tasks and networks, and the tasks nearest to the images as a table. */
function showMap() {
  $("map-figure").hidden = !state.map;
  if (!state.map) return;
  const { places, trustworthiness } = state.map;
  const nearest = places
    .filter((one) => one.kind === "task" && one.similarity !== null)
    .sort((one, other) => other.similarity - one.similarity);
  const first = new Set(state.fitting.slice(0, PAGE).map((one) => one.model));
  const within = new Set(state.fitting.map((one) => one.model));
  drawMap($("map"), places, { first, within, chosen: state.fitting[0]?.model });
  const sure = trustworthiness === null ? "" : ` Neighbours here are neighbours there to ${percent(trustworthiness)}.`;
  $("map-trust").textContent = `Two dimensions of the space (PCA); what is apart there may look near here.${sure}`;
  const best = (task) => state.fitting.find((one) => one.home_task === task)?.model;
  const rows = nearest.map((one) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name(one.name)),
      h("td", {}, signed(one.similarity)),
      h("td", { class: "text" }, name(best(one.name) ?? "none within the limits")),
    ),
  );
  $("near-tasks").replaceChildren(...rows);
}

function item(one, index, onFront, { low, width, half }) {
  const share = (value) => `${(100 * (value - low)) / width}%`;
  const interval = h("i");
  interval.style.left = share(one.score - half);
  interval.style.width = `${(200 * half) / width}%`;
  const middle = h("b");
  middle.style.left = share(one.score);
  const figure = (term, ...value) => h("div", {}, h("dt", {}, term), h("dd", {}, ...value));
  const figures = h(
    "dl",
    {},
    figure("Score", minus(one.score.toFixed(2)) + (half ? ` ± ${half.toFixed(2)}` : "")),
    figure("Parameters", `${number(one.params_m)} M`),
    figure("MACs", `${number(one.macs_m)} M`),
    ...(one.latency_ms ? [figure("Latency", `${number(one.latency_ms)} ms`)] : []),
  );
  const start = h(
    "button",
    { type: "button", onclick: () => prepare(one, state.source), "aria-label": `Fine-tune ${one.model}` },
    "Fine-tune",
  );
  if (index > 0) start.classList.add("quiet");
  return h(
    "li",
    {},
    h("span", { class: "rank", "aria-hidden": "true" }, String(index + 1)),
    h(
      "div",
      { class: "about" },
      h("h3", {}, name(one.model), onFront ? h("span", { class: "badge" }, "best for its compute") : null),
      h("p", {}, ...reasons(one, index)),
      h("div", { class: "range", "aria-hidden": "true" }, interval, middle),
    ),
    figures,
    start,
    h("details", {}, h("summary", {}, "Parts of the score, and licences"), parts(one)),
  );
}

/** Why a network has its rank, in sentences. */
function reasons(one, index) {
  const said = [];
  if (one.home_accuracy === null) said.push("Its weights are general: tuned on no task alone. ");
  else said.push("Tuned on ", name(one.home_task), `, where it reaches ${percent(one.home_accuracy)}. `);
  const first = state.fitting[0];
  const [kind, gain] = strongest(one);
  const same = index > 0 && kind === strongest(first)[0];
  if (gain > 0.05 && !same)
    said.push(`Most in its favour: ${KINDS[kind]} (${signed(gain)} over the average network). `);
  if (one.probe !== null)
    said.push(
      `On your images, its features explain ${percent(Math.max(0, one.probe))} of the differences between classes. `,
    );
  if (index > 0) {
    const times = one.macs_m / first.macs_m;
    const compute =
      times > 0.9 && times < 1.1
        ? "at about the same compute"
        : `at ${number(Number(times.toPrecision(2)))} times the compute`;
    const behind = first.score - one.score;
    const gap = `${Math.abs(behind).toFixed(2)} ${behind > 0 ? "behind" : "ahead of"} the first`;
    said.push(`${Math.abs(behind) < 0.005 ? "Equal to the first" : gap}, ${compute}.`);
  }
  return said;
}

const KINDS = {
  capacity: "its size and shape",
  start: "its weights as a start for any images",
  fit: "its fit to these images",
};

/** The part of a score that is furthest above that of the average network, and by how much. */
function strongest(one) {
  const over = Object.keys(KINDS).map((kind) => [kind, one[kind] - mean(kind)]);
  return over.reduce((best, other) => (other[1] > best[1] ? other : best));
}

const mean = (kind) => state.all.reduce((sum, one) => sum + one[kind], 0) / state.all.length;

function parts(one) {
  const row = (term, value) => h("div", {}, h("dt", {}, term), h("dd", {}, value));
  return h(
    "dl",
    { class: "parts" },
    row("Capacity: of its size and shape", signed(one.capacity)),
    row("Start: of its weights, for any images", signed(one.start)),
    row(`Fit: to these images (trust ${percent(one.trust)})`, signed(one.fit)),
    row("Likeness of your images and this network", signed(one.similarity)),
    row("Trained on images of", name(one.source)),
    row("Licences", name(one.licence)),
  );
}

for (const id of [...Object.keys(COSTS), "home-accuracy", "latency-most", "per-task"])
  $(id).addEventListener("input", soon);
for (const id of ["families", "licences", "homes", "input-size", "latency-profile", "prefer"])
  $(id).addEventListener("change", soon);
$("refine").addEventListener("change", rankAgain);
$("no-limits").addEventListener("click", () => {
  noLimits();
  return rankAgain();
});
$("limits").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => {
  const next = state.shown;
  state.shown += PAGE;
  show();
  $("ranking").children[next]?.querySelector("button").focus();
});
new ResizeObserver(() => {
  if (!state.all.length) return;
  drawFront($("front"), state.all, state.fitting, state.fitting[0]);
  showMap();
}).observe($("front").parentElement);
