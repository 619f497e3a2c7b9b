/* The broker's JSON API: one function that reads, one that writes, one kind of error.
 *
 * An answer that is an error is an ApiError with the broker's code and message. No answer at all (refused, reset, too late) is
 * an ApiError with code UNREACHABLE: the page goes on showing what it has and says so. Reads are cancelled by the signal of
 * the view that asked; writes carry the token of the session, which is fetched again once when the broker has been restarted.
 */

const ROOT = "/api/v1";
const READ_TIMEOUT_MS = 8_000;
const WRITE_TIMEOUT_MS = 30_000;

export class ApiError extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }

  get unreachable() {
    return this.code === "UNREACHABLE";
  }
}

/** Path segments from names: `path("topics", name)`. */
export function path(...segments) {
  return segments.map((segment) => encodeURIComponent(segment)).join("/");
}

/** What GET says. `query` entries that are empty are left out. */
export async function read(resource, { query = {}, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  return ask(`${ROOT}/${resource}${search}`, {}, READ_TIMEOUT_MS, signal);
}

let session = null;

/** {writes, token}: whether this server takes changes from here. Remembered until `forget`. */
export async function getSession() {
  session ??= await read("session");
  return session;
}

/** The broker may be another one now: what its session said no longer holds. */
export function forgetSession() {
  session = null;
}

/** What POST says. */
export async function write(resource, body = {}) {
  try {
    return await send(resource, body);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 403) throw error;
    // The token of a broker that has been restarted since is refused; a new one is asked for, once.
    forgetSession();
    return send(resource, body);
  }
}

async function send(resource, body) {
  const { token } = await getSession();
  const headers = { "content-type": "application/json", "x-logsvc-token": token ?? "" };
  return ask(`${ROOT}/${resource}`, { method: "POST", headers, body: JSON.stringify(body) }, WRITE_TIMEOUT_MS);
}

async function ask(url, options, timeoutMs, signal) {
  const timeout = AbortSignal.timeout(timeoutMs);
  let response;
  let document;
  try {
    response = await fetch(url, {
      ...options,
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    document = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (response && !response.ok) throw new ApiError("HTTP_ERROR", `The broker answered ${response.status}.`, response.status);
    throw new ApiError("UNREACHABLE", "The broker cannot be reached.", 0);
  }
  if (response.ok) return document;
  const { code = "HTTP_ERROR", message = `The broker answered ${response.status}.` } = document.error ?? {};
  throw new ApiError(code, message, response.status);
}

/** Where the whole value of a record can be downloaded. */
export function valueUrl(topic, partition, offset) {
  return `${ROOT}/${path("topics", topic, "partitions", partition, "records", offset, "value")}`;
}
