// What the service is asked: JSON from the address that the page came from, with a token where one is demanded.

const KEY = "recsys-token";
const AWAY = "The service does not answer. It is asked again with the next thing you do.";

/** An answer that is none. status: of HTTP, or 0 where nobody answered. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const keepToken = (token) => sessionStorage.setItem(KEY, token);
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

/** Send a request as it is; query: values by name, lists stand for several; body: is posted as JSON. */
export async function send(path, { query = {}, body, signal } = {}) {
  const headers = hasToken() ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const asked = new URLSearchParams(Object.entries(query).flatMap(([name, values]) => [values].flat().map((value) => [name, value])));
  try {
    return await fetch(asked.size ? `${path}?${asked}` : path, { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refused(0, AWAY);
  }
}

/** Integers that a float cannot hold stay the text that they were: ids are any 64 bits. */
const exact = (key, value, context) => (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);

/** Ask for JSON. Throws Refused with the service's own line, and AbortError. */
export async function ask(path, options = {}) {
  const answer = await send(path, options);
  const text = await answer.text();
  options.signal?.throwIfAborted();
  if (answer.ok) return JSON.parse(text, exact);
  let said;
  try {
    said = JSON.parse(text).error;
  } catch {
    said = null; // a page of a proxy, and no word of the service
  }
  throw new Refused(answer.status, said ?? (answer.status >= 500 ? AWAY : `The service refused (${answer.status}).`));
}

/** Return a way to ask in which a newer question ends the one before it, so that no answer comes out of order. */
export function line() {
  let last;
  return (path, options) => {
    last?.abort();
    last = new AbortController();
    return ask(path, { ...options, signal: last.signal });
  };
}
