// Calls of the API: one function for each, errors with the server's own sentence, patience where it asks for it.
import { askForToken, authorization, hasToken } from "./session.js";

/** The server refused, or did not answer; ``message`` is a sentence for people. */
export class ServerError extends Error {
  constructor(message, { status = 0, code = "unreachable", retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

export const wasAborted = (error) => error?.name === "AbortError";

const TRIES = 4;

async function call(
  path,
  { method = "GET", body = null, signal = null, change = false, as = "json", onWait = null } = {},
) {
  for (let attempt = 1; ; attempt++) {
    const headers = { ...authorization(), ...(change ? { "X-DeepHash": "1" } : {}) };
    const isForm = body instanceof FormData;
    if (body !== null && !isForm) headers["Content-Type"] = "application/json";
    const sent = body === null || isForm ? body : JSON.stringify(body);
    const error = await answerOrError(path, { method, headers, body: sent, signal }, as);
    if (!(error instanceof ServerError)) return error;
    if (error.status === 401) {
      const reason = hasToken()
        ? "The token was not accepted. deephash serve prints it behind the address, after #token=."
        : "Open the whole address that deephash serve printed, or enter what stands there behind #token=.";
      if (await askForToken(reason)) continue;
      throw error;
    }
    // What is being worked out will come; a busy server is asked a few times more.
    const waits = error.retryAfter !== null && (error.code === "computing" || attempt < TRIES);
    if (!waits || (change && error.status !== 429)) throw error;
    onWait?.(error.message);
    await pause(Math.min(error.retryAfter, 5), signal);
  }
}

async function answerOrError(path, options, as) {
  let answer;
  try {
    answer = await fetch(path, options);
    if (answer.ok) return as === "blob" ? await answer.blob() : await answer.json();
  } catch (error) {
    if (wasAborted(error)) throw error;
    return new ServerError("The server does not answer. Is deephash serve still running?");
  }
  const told = await answer.json().catch(() => null);
  const sentence = told?.error?.message ?? `The server answered ${answer.status}.`;
  const wait = answer.headers.get("Retry-After");
  return new ServerError(asSentence(sentence), {
    status: answer.status,
    code: told?.error?.code ?? "failed",
    retryAfter: wait === null ? null : Number(wait),
  });
}

const asSentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Returns the query string of parameters; null leaves one out, a list repeats it. */
function query(parameters) {
  const pairs = Object.entries(parameters).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value])
      .filter((one) => one !== null && one !== undefined)
      .map((one) => [name, one]),
  );
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}

function form(files) {
  const made = new FormData();
  for (const file of files) made.append("image", file, "image");
  return made;
}

export const stats = (options) => call("v1/stats", options);
export const image = (id, options) => call(`v1/images/${id}`, options);
export const images = (parameters, options) => call(`v1/images${query(parameters)}`, options);
export const search = (parameters, options) => call(`v1/search${query(parameters)}`, options);
export const duplicates = (parameters, options) => call(`v1/duplicates${query(parameters)}`, options);
export const jobs = (options) => call("v1/jobs", options);
export const thumbnail = (id, size, options) =>
  call(`v1/images/${id}/thumbnail?size=${size}`, { as: "blob", ...options });
export const fileUrl = (id) => `v1/images/${id}/file`;
export const eventsUrl = (job) => `v1/jobs/${job}/events`;

export const encode = (file, options) => call("v1/encode", { method: "POST", body: form([file]), ...options });

/** Searches with the mean of indexed images and files as one query. */
export const searchTogether = (ids, files, options) =>
  files.length === 0
    ? search({ id: ids, combine: true, k: 1 }, options)
    : call(`v1/search${query({ id: ids, combine: true, k: 1 })}`, { method: "POST", body: form(files), ...options });

export const startSync = (wanted) => call("v1/jobs", { method: "POST", body: wanted, change: true });
export const addImages = (files) => call("v1/images", { method: "POST", body: form(files), change: true });
export const cancelJob = (id) => call(`v1/jobs/${id}/cancel`, { method: "POST", change: true });
