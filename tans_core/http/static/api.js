// Requests to the service: the token, problem documents, the progress of an upload, and server-sent events.

const TOKEN = "tans-token";
const MOST_WAITS = 5;
const LONGEST_WAIT_S = 10;

/** An answer that is an error: a problem document (RFC 9457), or no answer at all. */
export class Problem extends Error {
  constructor(status, { title = "", detail = "", advice = [] } = {}) {
    super(detail || title || `The service answered ${status}.`);
    this.status = status;
    this.advice = advice;
  }
}

/** An error of what a person gave, found on the page itself. */
export const refusal = (detail) => new Problem(0, { detail });

let askToken = null;
let asking = null;

/** Set the function that asks a person for the token; it returns a promise of it. */
export function onToken(ask) {
  askToken = ask;
}

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function newToken(given) {
  // Requests that fail together ask once.
  asking ??= askToken(given !== null).finally(() => (asking = null));
  sessionStorage.setItem(TOKEN, await asking);
}

export const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/**
 * Send a request; return the answer as JSON, or as a blob.
 * `query` leaves out values that are null; `progress` gets the share of the body that was sent.
 */
export async function call(path, { method = "GET", query = {}, body = null, as = "json", progress, signal } = {}) {
  const values = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const address = values.length ? `${path}?${new URLSearchParams(values)}` : path;
  for (let waits = 0; ;) {
    const token = sessionStorage.getItem(TOKEN);
    const answer = await send(method, address, body, progress, signal);
    if (answer.status === 401) {
      await newToken(token);
    } else if (answer.status === 429 && waits < MOST_WAITS && comeBack(answer) <= LONGEST_WAIT_S) {
      waits += 1;
      await wait(comeBack(answer));
    } else if (answer.status >= 200 && answer.status < 300) {
      return as === "json" ? parsed(await answer.response.text()) : answer.response;
    } else {
      throw new Problem(answer.status, parsed(await answer.response.text()));
    }
  }
}

const comeBack = (answer) => Number(answer.getResponseHeader("Retry-After")) || 2;

function parsed(text) {
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return {};
  }
}

function send(method, address, body, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much of a body was sent
    request.open(method, address);
    request.responseType = "blob";
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    if (body) request.setRequestHeader("Content-Type", body.type);
    if (progress) request.upload.onprogress = (event) => progress(event.loaded / Math.max(1, event.total));
    request.onload = () => resolve(request);
    request.onabort = () => reject(new DOMException("replaced by a later request", "AbortError"));
    request.onerror = () =>
      reject(
        new Problem(0, {
          detail: "The connection ended without an answer.",
          advice: [
            body ? "The upload may be larger than the service takes (`--max-mb`)." : "",
            "Is `tans api` running?",
          ].filter(Boolean),
        }),
      );
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** Yield the data of each server-sent event, parsed from JSON. EventSource would send no token. */
export async function* events(path, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const answer = await fetch(path, { headers: headers({ Accept: "text/event-stream" }), signal });
  if (answer.status === 401) {
    await newToken(token);
    yield* events(path, signal);
    return;
  }
  if (!answer.ok) throw new Problem(answer.status, parsed(await answer.text()));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = (held + part.value.replaceAll("\r", "")).split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n"));
    }
  }
}
