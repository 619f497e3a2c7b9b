/* Where we are, as the part of the address behind #: `#/topics/orders/records?partition=0&offset=-50`.
 *
 * Everything a view shows that a person would want to send to a colleague is in the address. Names are encoded, since a
 * topic's name is data.
 */

/** An address within the console. Entries of `query` that are empty are left out. */
export function link(segments, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/${segments.map((segment) => encodeURIComponent(segment)).join("/")}${search}`;
}

/** {segments, query} of the present address. */
export function here() {
  const [where, search = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { segments: where.split("/").filter(Boolean).map(decode), query: Object.fromEntries(new URLSearchParams(search)) };
}

function decode(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment; // a lone % typed by hand
  }
}

/** Go there; with `replace`, without a step in the history. */
export function go(address, { replace = false } = {}) {
  if (replace) location.replace(address);
  else location.hash = address.slice(1);
}
