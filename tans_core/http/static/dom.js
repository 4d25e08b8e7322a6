// Elements, numbers and messages. Names of files and classes become text nodes, never markup.

import { Problem } from "./api.js";

export const $ = (id) => document.getElementById(id);

/** Make an element: `h("li", { class: "one", hidden: true }, "text", child)`. */
export function h(kind, properties = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const counts = new Intl.NumberFormat("en");
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const number = (value) => three.format(value);
export const minus = (text) => text.replace("-", "−");
export const signed = (value) => `${value <= -0.005 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
export const percent = (value) => `${(100 * value).toFixed(0)}\u00a0%`;
export const several = (count, one, many = `${one}s`) => `${counts.format(count)} ${count === 1 ? one : many}`;
export const name = (text) => h("bdi", {}, text);

/** Show a section, and bring it into view. */
export function reveal(id) {
  $(id).hidden = false;
  mark(id);
  into($(id), "start");
}

/** Show a section below the one that a person is at. */
export function append(id) {
  $(id).hidden = false;
  mark();
}

/** Hide sections, since what they show is of other images. */
export function conceal(...ids) {
  for (const id of ids) $(id).hidden = true;
  mark();
}

/** Mark the steps that are there, and the one that a person is at. */
function mark(current = null) {
  for (const link of document.querySelectorAll("#steps a")) {
    const there = !$(link.hash.slice(1)).hidden;
    link.parentElement.classList.toggle("there", there);
    link.ariaDisabled = there ? null : "true";
    link.tabIndex = there ? 0 : -1;
    if (current) link.ariaCurrent = link.hash === `#${current}` ? "step" : null;
  }
}

function into(element, block) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ behavior: still ? "auto" : "smooth", block });
}

/** Say what happens in a section; screen readers read it out. */
export function say(id, text) {
  $(id).querySelector(".status").textContent = text;
}

/** Do something in a section; an error is shown there. Returns what it returns, or undefined after an error. */
export async function guarded(id, action) {
  const box = $(id).querySelector(".problem");
  box.hidden = true;
  try {
    return await action();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) console.error(error);
    say(id, "");
    const advice = (error.advice ?? []).map((line) => h("li", {}, line));
    box.replaceChildren(h("p", { class: "strong" }, error.message), ...(advice.length ? [h("ul", {}, ...advice)] : []));
    box.hidden = false;
    into(box, "nearest");
    return undefined;
  }
}

/** Let an element take files that are dropped on it. */
export function takesDrops(element, take) {
  const over = (event, on) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.toggle("over", on);
  };
  element.addEventListener("dragover", (event) => over(event, true));
  element.addEventListener("dragleave", (event) => over(event, false));
  element.addEventListener("drop", (event) => {
    over(event, false);
    take(event.dataTransfer);
  });
}
