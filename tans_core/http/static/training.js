// One network is fine-tuned, watched, downloaded, and tried on new pictures.

import { call, events, refusal, wait } from "./api.js";
import { $, append, conceal, guarded, h, name, number, percent, reveal, say, several, takesDrops } from "./dom.js";
import { chosenFiles, distinct, droppedFiles, isPicture, thumbnail, zip } from "./files.js";
import { drawCurve } from "./plots.js";

const ENDED = new Set(["COMPLETED", "FAILED", "CANCELLED"]);
const FILES = [
  ["weights.safetensors", "Weights (safetensors)"],
  ["model.onnx", "ONNX, normalisation inside"],
  ["card.json", "Card"],
  ["report.html", "Report"],
];
const MOST_LOSSES = 30;
const SHOWN = 60;
const TOP = 3;
const THUMBNAIL_PX = 128;

let chosen = null;
let images = null;
let job = null;
let watching = null;

/** Offer to fine-tune a network on images: `{body}`. */
export function prepare(candidate, source) {
  watching?.abort();
  [chosen, images, job] = [candidate, source, null];
  conceal("trying");
  $("tuned-model").textContent = candidate.model;
  $("start").hidden = $("epochs-words").hidden = false;
  $("job").hidden = true;
  say("tuning", "");
  reveal("tuning");
  $("start").querySelector("button").focus({ preventScroll: true });
}

async function begin() {
  const [button, wanted] = [$("start").querySelector("button"), chosen];
  if (button.disabled) return;
  button.disabled = true; // a second click would make a second job
  await guarded("tuning", async () => {
    const query = { model: chosen.model, epochs: $("epochs").value || null };
    const progress = (share) => {
      if (chosen === wanted) say("tuning", share < 1 ? "Sending the images …" : "Starting …");
    };
    const made = await call("/v1/finetune", { method: "POST", query, body: images.body, progress });
    if (chosen === wanted) watch(made);
    else await listJobs();
  });
  button.disabled = false;
}

/** Follow a job to its end. */
async function watch(made) {
  watching?.abort();
  watching = new AbortController();
  const { signal } = watching;
  show(made);
  $("start").hidden = $("epochs-words").hidden = true;
  await guarded("tuning", async () => {
    // The service may be started again meanwhile, and continues the job.
    for (let losses = 0; !ENDED.has(job.state) && losses < MOST_LOSSES; losses++) {
      if (losses) await wait(2);
      if (signal.aborted) return; // `job` is another one now
      try {
        for await (const news of events(`/v1/jobs/${encodeURIComponent(made.id)}/events`, signal)) {
          if (signal.aborted) return;
          show(news);
          losses = 0;
        }
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // a TypeError: no connection
        if (signal.aborted) return;
        say("tuning", "The connection is lost. Trying again …");
      }
      if (signal.aborted) return;
    }
    if (!ENDED.has(job.state))
      throw refusal("The service does not answer. Is `tans api` running? Then load this page again.");
  });
  if (!signal.aborted) await listJobs();
}

function show(news) {
  job = news;
  const ended = ENDED.has(job.state);
  $("job").hidden = false;
  $("tuned-model").textContent = job.model ?? "a network that is still being chosen";
  $("cancel").hidden = ended;
  $("epochs-done").hidden = ended;
  if (job.epochs) $("epochs-done").value = (job.epoch ?? 0) / job.epochs;
  say("tuning", inWords());
  const curve = job.curve ?? [];
  const plot = $("curve").closest("figure");
  plot.hidden = plot.nextElementSibling.hidden = !curve.length;
  if (curve.length) showCurve(curve);
  const tested = typeof job.accuracy === "number";
  $("result").hidden = !tested;
  if (tested) {
    const words = h("p", {}, "of the test images are recognised. Nothing was chosen by these images.");
    $("result").replaceChildren(h("p", { class: "figure" }, percent(job.accuracy)), words);
  }
  $("downloads").hidden = !job.run;
  if (job.run && $("downloads").dataset.run !== job.run) guarded("tuning", showDownloads);
  if (job.state === "COMPLETED" && job.run) offerTrying();
  if (job.problem) {
    const box = $("tuning").querySelector(".problem");
    const advice = (job.problem.advice ?? []).map((line) => h("li", {}, line));
    box.replaceChildren(h("p", { class: "strong" }, job.problem.detail), h("ul", {}, ...advice));
    box.hidden = false;
  }
}

function inWords() {
  const { state, epoch, epochs, waiting_for: waiting, curve } = job;
  if (state === "PENDING") return waiting ? `Waiting for ${waiting} …` : "Waiting for its turn …";
  if (state === "COMPLETED") return "Done.";
  if (state === "CANCELLED") return "Cancelled.";
  if (ENDED.has(state)) return "It failed.";
  const last = curve?.at(-1)?.val_accuracy;
  const accuracy = Number.isFinite(last) ? `: ${percent(last)} of the validation images` : "";
  return epochs ? `Epoch ${number(epoch ?? 0)} of ${epochs}${accuracy} …` : "Preparing …";
}

function showCurve(curve) {
  const highest = drawCurve($("curve"), curve, job.epochs);
  $("highest").textContent = highest.toPrecision(2);
  const last = curve.at(-1);
  $("curve").setAttribute(
    "aria-label",
    `Learning curve: after epoch ${number(last.epoch)}, validation accuracy ${percent(last.val_accuracy)}`,
  );
  const rows = curve.map((one) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, number(one.epoch)),
      h("td", {}, one.train_loss?.toFixed(3) ?? ""),
      h("td", {}, one.val_accuracy?.toFixed(3) ?? ""),
    ),
  );
  $("points").replaceChildren(...rows);
}

/* Downloads */

async function showDownloads() {
  const run = job.run;
  $("downloads").dataset.run = run;
  const { files } = await call(`/v1/runs/${encodeURIComponent(run)}`);
  const there = new Set(files.map((file) => file.name));
  const buttons = FILES.filter(([file]) => there.has(file)).map(([file, words]) => {
    const button = h("button", { type: "button", class: "quiet" }, words);
    button.addEventListener("click", () => download(run, file, button));
    return button;
  });
  $("download-buttons").replaceChildren(...buttons);
}

/** Fetched here, since a plain link would send no token. */
async function download(run, file, button) {
  button.ariaBusy = "true";
  await guarded("tuning", async () => {
    say(
      "tuning",
      file === "model.onnx" ? "Exporting to ONNX; the first time takes some seconds …" : `Fetching ${file} …`,
    );
    const content = await call(`/v1/runs/${encodeURIComponent(run)}/files/${file}`, { as: "blob" });
    const link = h("a", { href: URL.createObjectURL(content), download: `${run}-${file}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("tuning", `${file}: downloaded.`);
  });
  button.ariaBusy = null;
}

/* New pictures */

function offerTrying() {
  if ($("trying").dataset.run === job.run && !$("trying").hidden) return;
  $("trying").dataset.run = job.run;
  $("predictions").replaceChildren();
  say("trying", "");
  append("trying");
}

async function predict(files) {
  await guarded("trying", async () => {
    const pictures = distinct(files.filter(isPicture).map((one) => ({ ...one, name: one.name.split("/").pop() })));
    if (!pictures.length) throw refusal("There is no image in this.");
    say("trying", `Sending ${several(pictures.length, "picture")} …`);
    const body = await zip(pictures);
    const { predictions } = await call("/v1/predict", {
      method: "POST",
      query: { run: $("trying").dataset.run },
      body,
    });
    const byName = new Map(predictions.map((one) => [(one.image ?? one.name).split("/").pop(), one]));
    const failed = predictions.filter((one) => one.label === null).length;
    say("trying", `${several(predictions.length, "picture")}${failed ? `, ${failed} cannot be read` : ""}.`);
    const items = pictures
      .slice(0, SHOWN)
      .map((picture) => prediction(picture, byName.get(picture.name.normalize()) ?? byName.get(picture.name)));
    $("predictions").replaceChildren(...(await Promise.all(items)));
    if (pictures.length > SHOWN)
      $("predictions").append(h("li", { class: "muted" }, `and ${pictures.length - SHOWN} more`));
  });
}

async function prediction(picture, said) {
  const shown = await thumbnail(picture.file, THUMBNAIL_PX).catch(() => h("span", { class: "nothing" }, "?"));
  shown.ariaHidden = "true";
  const title = h("p", { class: "muted small file" }, name(picture.name));
  if (!said?.label)
    return h(
      "li",
      {},
      shown,
      h("div", {}, h("p", { class: "bad strong" }, said?.error ?? "Not an image that can be read"), title),
    );
  const best = Object.entries(said.probabilities ?? { [said.label]: said.probability }).sort((a, b) => b[1] - a[1]);
  const rows = best.slice(0, TOP).map(([label, probability]) => {
    const bar = h("i");
    bar.style.width = `${100 * probability}%`;
    return h(
      "div",
      {},
      h("dt", {}, name(label)),
      h("dd", {}, percent(probability)),
      h("span", { class: "bar", "aria-hidden": "true" }, bar),
    );
  });
  return h(
    "li",
    {},
    shown,
    h("div", {}, h("h3", {}, name(said.label)), h("dl", { class: "probabilities" }, ...rows), title),
  );
}

/* Jobs of before */

/** Show the fine-tunings that the service knows, so that a page that was closed finds its own again. */
export async function listJobs() {
  const { jobs } = await call("/v1/jobs").catch(() => ({ jobs: [] }));
  const items = jobs.slice(0, 10).map((one) => {
    const open = () => {
      conceal("trying");
      delete $("trying").dataset.run;
      reveal("tuning");
      return watch(one);
    };
    const accuracy = typeof one.accuracy === "number" ? `, test accuracy ${percent(one.accuracy)}` : "";
    const began = new Date(one.created).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
    const words = h(
      "span",
      {},
      name(one.model ?? "a network"),
      `: ${one.state.toLowerCase()}${accuracy} `,
      h("span", { class: "muted small" }, began),
    );
    return h(
      "li",
      {},
      words,
      h(
        "button",
        { type: "button", class: "quiet", onclick: open, "aria-label": `Show the fine-tuning of ${began}` },
        "Show",
      ),
    );
  });
  $("jobs").replaceChildren(...items);
  $("earlier").hidden = !items.length;
}

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  delete $("trying").dataset.run;
  return begin();
});
$("cancel").addEventListener("click", () =>
  guarded("tuning", () => call(`/v1/jobs/${encodeURIComponent(job.id)}`, { method: "DELETE" })),
);
takesDrops($("trying"), (transfer) => guarded("trying", async () => predict(await droppedFiles(transfer))));
$("try-files").addEventListener("change", async () => {
  await predict(chosenFiles($("try-files")));
  $("try-files").value = "";
});
new ResizeObserver(() => {
  if (job?.curve?.length) showCurve(job.curve);
}).observe($("curve").parentElement);
