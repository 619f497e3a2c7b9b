/* Bytes as people read them: text, JSON, hex. Pure but for the base64 decoder of the browser.
 *
 * The API sends {text} when all is readable UTF-8 and {base64} otherwise; `cut_bytes` is the length of a value it has cut.
 */

import { bytes } from "./format.js";

const HEX_BYTES_MAX = 16_384;
const HEX_ROW_BYTES = 8; // a row fits beside a list, and on a phone
const HEX_LINE_BYTES_MAX = 16;
const PREVIEW_CHARACTERS_MAX = 160;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const FORMATS = [
  ["text", "Text"],
  ["json", "JSON"],
  ["hex", "Hex"],
];

/** The bytes of {text} or {base64}. */
export function toBytes(value) {
  if (value.text !== undefined) return encoder.encode(value.text);
  return Uint8Array.from(atob(value.base64), (character) => character.charCodeAt(0));
}

export function toText(value) {
  return value.text ?? decoder.decode(toBytes(value));
}

const lengthOf = (value) => value.cut_bytes ?? toBytes(value).length;
const hexByte = (byte) => byte.toString(16).padStart(2, "0");
const hexLine = (data) => `0x${[...data].map(hexByte).join("")}`;

/** Whether one line shows all of it: text, or the few bytes of a number or an identifier. */
export function isShort(value) {
  return value === null || value.text !== undefined || lengthOf(value) <= HEX_LINE_BYTES_MAX;
}

/** One line for a list; null means that there is none. */
export function preview(value) {
  if (value === null) return null;
  if (value.text === undefined) return isShort(value) ? hexLine(toBytes(value)) : `${bytes(lengthOf(value))} of binary data`;
  return value.text.slice(0, PREVIEW_CHARACTERS_MAX).replace(/\s+/g, " ");
}

/** Indented, or null when it is not JSON. Numbers a browser cannot hold exactly are left as they were written. */
export function prettyJson(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  return indent(text);
}

/* Laid out by token, not parsed and printed again: 12345678901234567890 stays itself, so do 1.0 and repeated names. */
function indent(text) {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let depth = 0;
  let out = "";
  const newline = () => `\n${"  ".repeat(depth)}`;
  tokens.forEach((token, index) => {
    const emptied = (token === "}" || token === "]") && "{[".includes(tokens[index - 1]);
    if (token === "{" || token === "[") {
      depth += 1;
      out += token + ("}]".includes(tokens[index + 1]) ? "" : newline());
    } else if (token === "}" || token === "]") {
      depth -= 1;
      out += (emptied ? "" : newline()) + token;
    } else if (token === ",") {
      out += token + newline();
    } else {
      out += token === ":" ? ": " : token;
    }
  });
  return out;
}

/** What a value is best read as. */
export function bestFormat(value) {
  if (value === null || value.text === undefined) return value === null ? "text" : "hex";
  return /^\s*[{[]/.test(value.text) && prettyJson(value.text) !== null ? "json" : "text";
}

/** Offset, eight bytes, the same as ASCII, a line each. */
export function hexDump(data) {
  const shown = data.subarray(0, HEX_BYTES_MAX);
  const lines = [];
  for (let at = 0; at < shown.length; at += HEX_ROW_BYTES) {
    const row = [...shown.subarray(at, at + HEX_ROW_BYTES)];
    const hex = row.map(hexByte).join(" ");
    const ascii = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(3 * HEX_ROW_BYTES - 1)}  ${ascii}`);
  }
  if (data.length > shown.length) lines.push(`… ${bytes(data.length - shown.length)} more`);
  return lines.join("\n");
}
