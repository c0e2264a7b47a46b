// Requests to the service that the page came from, with a token where one is required.

const TOKEN_KEY = "recsys-token";
const UNREACHABLE = "The service does not answer. Your next action tries again.";

/** A request that failed. status: the HTTP status, or 0 where nothing answered. */
export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const saveToken = (token) => sessionStorage.setItem(TOKEN_KEY, token);
export const hasToken = () => sessionStorage.getItem(TOKEN_KEY) !== null;

/** Send a request and return fetch's response. query: values by name, a list for several; body: posted as JSON. */
export async function send(path, { query = {}, body, signal } = {}) {
  const headers = hasToken() ? { Authorization: `Bearer ${sessionStorage.getItem(TOKEN_KEY)}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const parameters = new URLSearchParams(Object.entries(query).flatMap(([name, values]) => [values].flat().map((value) => [name, value])));
  try {
    return await fetch(parameters.size ? `${path}?${parameters}` : path, { method: body ? "POST" : "GET", body: body && JSON.stringify(body), headers, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServiceError(0, UNREACHABLE);
  }
}

/** Keep integers that a float cannot hold as text: ids may have 64 bits. */
const exactIntegers = (key, value, context) => (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);

/** Request JSON. Throws ServiceError with the service's message, and AbortError. */
export async function request(path, options = {}) {
  const response = await send(path, options);
  const text = await response.text();
  options.signal?.throwIfAborted();
  if (response.ok) return JSON.parse(text, exactIntegers);
  let message;
  try {
    message = JSON.parse(text).error;
  } catch {
    message = null; // a proxy's page rather than the service's error
  }
  throw new ServiceError(response.status, message ?? (response.status >= 500 ? UNREACHABLE : `The service refused (${response.status}).`));
}

/** Return a `request` that aborts the previous one it made, so that responses never arrive out of order; its `cancel` aborts the last. */
export function latestOnly() {
  let last;
  const latest = (path, options) => {
    latest.cancel();
    last = new AbortController();
    return request(path, { ...options, signal: last.signal });
  };
  latest.cancel = () => last?.abort();
  return latest;
}
