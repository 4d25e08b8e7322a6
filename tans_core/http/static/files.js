// Files that a person drops or chooses: their names and classes, thumbnails, and zips of them, written and read.
// A zip here is at most 4 GB and 65,535 files (no Zip64); the service takes less.

import { refusal } from "./api.js";

const SPLITS = new Set(["train", "training", "val", "valid", "validation", "dev", "test", "testing"]);
const PICTURE = /\.(jpe?g|png|gif|bmp|webp|tiff?|avif|jfif|ico)$/i;
const MOST_FILES = 0xffff;
const MOST_BYTES = 0xffffffff;
const MOST_SHOWN_BYTES = 64 * 2 ** 20;
const [LOCAL, ENTRY, END] = [0x04034b50, 0x02014b50, 0x06054b50];

/** Return `{name, file}` of all files in what was dropped; `name` is a path with `/`. */
export async function droppedFiles(transfer) {
  // All of them now: the browser forgets them after the first wait.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry instanceof File) {
    found.push({ name: entry.name, file: entry });
  } else if (entry?.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ name: entry.fullPath.replace(/^\//, ""), file });
  } else if (entry?.isDirectory) {
    const reader = entry.createReader();
    const some = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    for (let batch = await some(); batch.length; batch = await some()) {
      for (const one of batch) await walk(one, found);
    }
  }
}

/** Return `{name, file}` of the files of an `<input type="file">`. */
export function chosenFiles(input) {
  return [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
}

export const isArchive = ({ name }) => /\.(zip|parquet|pq)$/i.test(name);
export const isPicture = ({ name }) => PICTURE.test(name) && !/(^|\/)(\.|__MACOSX\/)/.test(name);

/** Return names as paths in a zip of class folders, each with its class; one folder above all classes is left out. */
export function classed(files) {
  const split = files.map((one) => one.name.split("/"));
  const above = split.length && split.every((parts) => parts.length > 2 && parts[0] === split[0][0]) ? 1 : 0;
  return files.map((one, index) => {
    const parts = split[index].slice(above);
    const label = parts.length > 2 && SPLITS.has(parts[0].toLowerCase()) ? parts[1] : parts.length > 1 ? parts[0] : "";
    return { ...one, name: parts.join("/"), label };
  });
}

/** Return files whose names differ, as names in a zip must: the second `a.png` becomes `a (2).png`. */
export function distinct(files) {
  const taken = new Set();
  return files.map((one) => {
    let name = one.name;
    for (let number = 2; taken.has(name); number++) name = one.name.replace(/(\.[^./]*)?$/, ` (${number})$1`);
    taken.add(name);
    return { ...one, name };
  });
}

/** Return a canvas with the middle of a picture; throws if the browser cannot read it. */
export async function thumbnail(file, side) {
  const bitmap = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const short = Math.min(bitmap.width, bitmap.height);
  const [left, top] = [(bitmap.width - short) / 2, (bitmap.height - short) / 2];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.imageSmoothingEnabled = short > side / 2; // icons keep their pixels
  context.drawImage(bitmap, left, top, short, short, 0, 0, side, side);
  bitmap.close();
  return canvas;
}

/** Write files, as they are, into a zip; the blob refers to them, so that memory holds one file at a time. */
export async function zip(files, progress = () => {}) {
  const [parts, directory] = [[], []];
  let offset = 0;
  if (files.length > MOST_FILES) throw refusal(`${files.length} files are too many here. Drop a zip of them.`);
  for (const [index, { name, file }] of files.entries()) {
    const data = new Uint8Array(await file.arrayBuffer());
    const path = new TextEncoder().encode(name);
    // Version 2.0, names in UTF-8, stored, 1980-01-01, then checksum and sizes.
    const common = [
      [20, 2],
      [0x800, 2],
      [0, 2],
      [0, 2],
      [0x21, 2],
      [crc32(data), 4],
      [data.length, 4],
      [data.length, 4],
    ];
    const local = bytes([[LOCAL, 4], ...common, [path.length, 2], [0, 2]]);
    const none = [
      [0, 2],
      [0, 2],
      [0, 2],
      [0, 2],
      [0, 4],
    ];
    directory.push(bytes([[ENTRY, 4], [20, 2], ...common, [path.length, 2], ...none, [offset, 4]]), path);
    parts.push(local, path, file);
    offset += local.length + path.length + data.length;
    if (offset > MOST_BYTES) throw refusal("More than 4 GB are too much here. A few hundred images are enough.");
    if (index % 50 === 0) progress(index / files.length);
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const count = [
    [files.length, 2],
    [files.length, 2],
  ];
  const end = bytes([[END, 4], [0, 2], [0, 2], ...count, [size, 4], [offset, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function bytes(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, width]) => sum + width, 0)));
  let at = 0;
  for (const [value, width] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(data) {
  let value = 0xffffffff;
  for (const byte of data) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Return `{name, read}` of the files in a zip; `read` gives one's content. Empty if it cannot be read here. */
export async function filesInZip(file) {
  const tail = new DataView(await file.slice(Math.max(0, file.size - 65557)).arrayBuffer());
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== END) at--;
  if (at < 0) return [];
  const [size, start] = [tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
  const list = new DataView(await file.slice(start, start + size).arrayBuffer());
  const found = [];
  for (let next = 0; next + 46 <= list.byteLength && list.getUint32(next, true) === ENTRY;) {
    const [method, packed, unpacked] = [
      list.getUint16(next + 10, true),
      ...[20, 24].map((o) => list.getUint32(next + o, true)),
    ];
    const [length, extra, comment] = [28, 30, 32].map((o) => list.getUint16(next + o, true));
    const offset = list.getUint32(next + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(list.buffer, next + 46, length));
    const read = () => content(file, { method, packed, unpacked, offset });
    if (!name.endsWith("/")) found.push({ name, read });
    next += 46 + length + extra + comment;
  }
  return found;
}

async function content(file, { method, packed, unpacked, offset }) {
  if (unpacked > MOST_SHOWN_BYTES) throw new Error("too large to show");
  const head = new DataView(await file.slice(offset, offset + 30).arrayBuffer());
  const start = offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const data = file.slice(start, start + packed);
  if (method === 0) return data;
  return new Response(data.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}
