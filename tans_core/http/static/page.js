// The page: images are gathered, packed and checked here; `ranking.js` ranks networks, `training.js` tunes one.

import { call, onToken, refusal } from "./api.js";
import { $, conceal, guarded, h, name, reveal, say, several, takesDrops } from "./dom.js";
import {
  chosenFiles,
  classed,
  distinct,
  droppedFiles,
  filesInZip,
  isArchive,
  isPicture,
  thumbnail,
  zip,
} from "./files.js";
import { rank } from "./ranking.js";
import { listJobs } from "./training.js";

const CLASSES = 12;
const THUMBNAILS = 5;
const THUMBNAIL_PX = 96;
const LISTED = 100;

/** What was gathered class by class, and pictures that have no class yet. */
const gathered = new Map();
let classless = [];

/** Check a zip or a Parquet file as it is. */
async function useArchive(file) {
  const type = /\.zip$/i.test(file.name) ? "application/zip" : "application/vnd.apache.parquet";
  const inside = type === "application/zip" ? await filesInZip(file).catch(() => []) : [];
  await check({ name: file.name, body: new Blob([file], { type }), pictures: classed(inside.filter(isPicture)) });
}

/** Pack files that have folders, and check them. */
async function useFiles(files, title) {
  say("images", `Packing ${several(files.length, "file")} …`);
  const body = await zip(files, (share) => ($("upload").value = share));
  await check({ name: title, body, pictures: classed(files.filter(isPicture)) });
}

/** Take what was dropped or chosen: an archive, a folder of class folders, the folder of one class, or pictures. */
async function take(files) {
  if (!files.length) return;
  $("upload").value = 0;
  if (files.length === 1 && isArchive(files[0])) return useArchive(files[0].file);
  const depths = files.filter(isPicture).map((one) => one.name.split("/").length);
  if (!depths.length)
    throw refusal("There is no image in this. Drop a folder of class folders, a zip of it, or pictures.");
  const folders = new Set(files.filter(isPicture).map((one) => one.name.split("/")[0]));
  if (Math.max(...depths) === 1) return askClass(files.filter(isPicture));
  if (Math.max(...depths) === 2 && (folders.size === 1 || gathered.size)) {
    for (const one of classed(files.filter(isPicture))) add(one.label, [one]);
    return showClasses();
  }
  return useFiles(files, files[0].name.split("/")[0]);
}

function askClass(pictures) {
  classless = pictures;
  $("by-class").open = true;
  say(
    "images",
    `${several(pictures.length, "picture")} without a folder. What is their class? Type its name, and press Enter.`,
  );
  $("class-name").focus();
}

function add(label, pictures) {
  const flat = pictures.map((one) => ({ ...one, name: one.name.split("/").pop(), label }));
  gathered.set(label, distinct([...(gathered.get(label) ?? []), ...flat]));
}

function showClasses() {
  $("by-class").open = true;
  const chips = [...gathered].map(([label, pictures]) => {
    const remove = () => {
      gathered.delete(label);
      showClasses();
    };
    const button = h(
      "button",
      { type: "button", class: "remove", "aria-label": `Remove ${label}`, onclick: remove },
      "×",
    );
    return h("li", {}, name(label), ` ${several(pictures.length, "image")} `, button);
  });
  $("class-list").replaceChildren(...chips);
  $("class-done").hidden = gathered.size < 2;
  say("images", gathered.size < 2 ? "Add another class: a search needs at least two." : "");
}

/** A class by class folder name: `/` would make another folder. */
const folderOf = (label) => label.replaceAll("/", "_").trim();

async function check(source) {
  conceal("scan", "networks", "tuning", "trying");
  const bar = $("upload");
  const progress = (share) => {
    bar.value = share;
    say("images", share < 1 ? `Sending ${source.name} …` : `Checking ${source.name} …`);
  };
  bar.hidden = false;
  progress(0);
  try {
    const answer = await call("/v1/scan", { method: "POST", query: { query: true }, body: source.body, progress });
    say("images", `${source.name}: checked.`);
    await showScan(answer, source);
    if (answer.passed) await rank({ ...source, query: answer.query });
  } finally {
    bar.hidden = true;
  }
}

async function showScan({ passed, scan }, source) {
  const filled = Object.values(scan.classes).filter(Boolean).length;
  const counts = `${several(scan.used, "image")} in ${several(filled, "class", "classes")}`;
  $("verdict").replaceChildren(
    `${counts}: `,
    h("span", { class: passed ? "good" : "bad" }, passed ? "ready" : "not usable as they are"),
  );
  const box = (kind, title, lines) =>
    lines.length
      ? [h("div", { class: `box ${kind}` }, h("h3", {}, title), h("ul", {}, ...lines.map((line) => h("li", {}, line))))]
      : [];
  const { failures, warnings } = scan.gate;
  $("verdict-boxes").replaceChildren(...box("bad", "What stops it", failures), ...box("odd", "Worth a look", warnings));
  $("findings").replaceChildren(...findings(scan));
  reveal("scan");
  $("scan-title").focus({ preventScroll: true });
  const labels = Object.keys(scan.found);
  $("all-classes").hidden = labels.length <= CLASSES;
  $("all-classes").textContent = `Show all ${labels.length} classes`;
  const show = (some) => showSamples(some, scan, source.pictures);
  $("all-classes").onclick = () => {
    $("all-classes").hidden = true;
    return show(labels);
  };
  await show(labels.slice(0, CLASSES));
}

async function showSamples(labels, scan, pictures) {
  const of = grouped(pictures);
  const rows = labels.map((label) => {
    const [used, found] = [scan.classes[label] ?? 0, scan.found[label]];
    const left = found - used;
    const counts = `${several(used, "image")}${left > 0 ? `, ${left} left out` : ""}`;
    const strip = h("div", { class: "strip" });
    return {
      label,
      strip,
      item: h("li", {}, h("h3", {}, name(label)), h("p", { class: left ? "odd small" : "muted small" }, counts), strip),
    };
  });
  $("classes").replaceChildren(...rows.map((row) => row.item));
  for (const { label, strip } of rows) {
    for (const picture of (of.get(label) ?? []).slice(0, 2 * THUMBNAILS)) {
      if (strip.childElementCount === THUMBNAILS) break;
      try {
        const shown = await thumbnail(picture.file ?? (await picture.read()), THUMBNAIL_PX);
        shown.role = "img";
        shown.ariaLabel = picture.name;
        shown.title = picture.name;
        strip.append(shown);
      } catch {
        // The findings name it, if the service cannot read it either.
      }
    }
  }
}

function grouped(pictures) {
  const made = new Map();
  for (const one of pictures) {
    const label = one.label.normalize();
    if (!made.has(label)) made.set(label, []);
    made.get(label).push(one);
  }
  return made;
}

/** One folded list for each kind of finding of a scan, with the names of the files. */
function findings(scan) {
  const pair = ([one, other]) => `${one} and ${other}`;
  const kinds = [
    ["cannot be read", scan.bad, ([file, reason]) => `${file}: ${reason}`],
    ["left out: the same image as another", scan.copies, String],
    ["left out: the same image in two classes", scan.contradictions, pair],
    ["left out: in two of your splits", scan.leaks, pair],
    ["look alike in two classes", scan.doubtful, pair],
    ["look alike, and stay in one split", scan.near_copies, (group) => group.join(", ")],
    ["of another format than their name says", scan.mislabelled, ([file, format]) => `${file}: ${format}`],
    ["blank", scan.blank, String],
    ["converted", scan.noted, ([file, note]) => `${file}: ${note}`],
    ["not opened", Object.entries(scan.skipped), ([reason, count]) => `${count}: ${reason}`],
    ["about how they were read", scan.notes, String],
  ];
  return kinds
    .filter(([, list]) => list.length)
    .map(([title, list, text]) => {
      const lines = list.slice(0, LISTED).map((one) => h("li", {}, name(text(one))));
      if (list.length > LISTED) lines.push(h("li", { class: "muted" }, `and ${list.length - LISTED} more`));
      return h("details", {}, h("summary", {}, `${list.length} ${title}`), h("ul", { class: "names" }, ...lines));
    });
}

function listen() {
  const given = (files) => guarded("images", () => take(files));
  const dropped = (transfer) => guarded("images", async () => given(await droppedFiles(transfer)));
  takesDrops(document.body, dropped);
  takesDrops($("drop"), dropped);
  for (const id of ["choose-folder", "choose-file"]) {
    $(id).addEventListener("change", async () => {
      await given(chosenFiles($(id)));
      $(id).value = "";
    });
  }
  const named = (pictures) => {
    const label = folderOf($("class-name").value);
    if (!label || !pictures.length) return $("class-name").reportValidity();
    add(label, pictures);
    classless = [];
    $("class-form").reset();
    showClasses();
    return $("class-name").focus();
  };
  $("class-files").addEventListener("change", () => {
    const pictures = chosenFiles($("class-files"));
    if (!$("class-name").value.trim()) return askClass(pictures);
    return named(pictures);
  });
  $("class-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (classless.length) named(classless);
    else $("class-files").click();
  });
  $("class-done").addEventListener("click", () =>
    guarded("images", () => {
      const files = [...gathered].flatMap(([label, all]) =>
        all.map((one) => ({ ...one, name: `${label}/${one.name}` })),
      );
      return useFiles(files, several(gathered.size, "class", "classes"));
    }),
  );
}

function token(refused) {
  $("token").hidden = false;
  if (refused) $("token-why").textContent = "This token is not the right one. The operator of the service has it.";
  $("token-value").focus();
  return new Promise((resolve) => {
    $("token").onsubmit = (event) => {
      event.preventDefault();
      $("token").hidden = true;
      resolve($("token-value").value.trim());
      $("token").reset();
    };
  });
}

async function start() {
  onToken(token);
  listen();
  const { release, total } = await call("/v1/models", { query: { limit: 1 } });
  $("release").textContent = `${several(total, "network")} in release ${release}`;
  await listJobs();
}

guarded("images", start);
