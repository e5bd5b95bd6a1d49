/** The metadata of a model file, read from its bytes, and its fingerprint.  See docs/format.md, "Where it is". */

import { ForeignModelError, FormatVersionError, InputError, ModelFileError, NotOnnxError, TamperedModelError } from "./errors.js";
import { sha256 } from "./sha256.js";

export const FORMAT_VERSION = 3;
export const DOCUMENT_VERSION = 1;
const PREFIX = "rnncore.";
const [IR_VERSION, GRAPH, METADATA_PROPS] = [1, 7, 14];
const [KEY, VALUE] = [1, 2];

class Malformed extends Error {}
class CutShort extends Malformed {}

/** Number, start and end of the content of each field of the protobuf message in bytes[start..end]. */
export function* fields(bytes, start, end) {
  let at = start;
  const varint = () => {
    let value = 0;
    for (let scale = 1, i = 0; i < 10; i++, scale *= 128) {
      if (at >= end) throw new CutShort(`it ends inside a field, at byte ${end}`);
      const byte = bytes[at++];
      value += (byte & 0x7f) * scale; // exact for all lengths that a file can have
      if (byte < 0x80) return value;
    }
    throw new Malformed("a number has no end");
  };
  while (at < end) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const wire = tag % 8;
    let size;
    if (wire === 2) size = varint();
    else if (wire === 0) {
      const first = at;
      varint();
      size = at - first;
      at = first;
    } else if (wire === 1) size = 8;
    else if (wire === 5) size = 4;
    else throw new Malformed(`a field of wire type ${wire}`);
    if (number === 0) throw new Malformed("a field without a number");
    if (at + size > end) throw new CutShort(`a field ends at byte ${at + size}, the file has ${bytes.length}`);
    yield [number, at, at + size];
    at += size;
  }
}

/** Whether rnncore wrote an ONNX file; the errors of `readMetadata` for bytes that are none. */
export const isOurs = (bytes) => entriesOf(bytes).some(({ key }) => key.startsWith(PREFIX));

/** All metadata of an ONNX file, by key: the text, and where in the file it begins and ends. */
function entriesOf(bytes) {
  if (!bytes.length) throw new NotOnnxError("the file is empty");
  const text = new TextDecoder("utf-8", { fatal: true });
  const seen = new Set();
  const entries = [];
  try {
    for (const [number, start, end] of fields(bytes, 0, bytes.length)) {
      seen.add(number);
      if (number !== METADATA_PROPS) continue;
      const entry = { key: "", value: "", start: 0, end: 0 };
      for (const [part, a, b] of fields(bytes, start, end)) {
        const content = text.decode(bytes.subarray(a, b));
        if (part === KEY) entry.key = content;
        if (part === VALUE) Object.assign(entry, { value: content, start: a, end: b });
      }
      entries.push(entry);
    }
  } catch (error) {
    if (error instanceof CutShort && seen.has(IR_VERSION)) {
      throw new NotOnnxError(`the file is truncated or damaged: ${error.message}; copy or export it again`);
    }
    if (String.fromCharCode(...bytes.subarray(4, 8)) === "ORTM") {
      throw new NotOnnxError("the file has onnxruntime's own format (.ort): load the .onnx file that it was made from");
    }
    throw new NotOnnxError("the file is no ONNX model, or is damaged");
  }
  if (!seen.has(GRAPH)) throw new NotOnnxError("the file is no ONNX model: it holds no graph");
  return entries;
}

/**
 * What the bytes of a model file say about the model, by name without "rnncore."; checked against the fingerprint.
 * Objects and lists are parsed, everything else is text: exactly the document of `rnncore inspect --json`.
 */
export async function readMetadata(bytes) {
  if (!(bytes instanceof Uint8Array)) throw new InputError("the bytes of a model file are a Uint8Array");
  const entries = entriesOf(bytes);
  const own = entries.filter(({ key }) => key.startsWith(PREFIX));
  if (!own.length) {
    throw new ForeignModelError(
      "this ONNX model was not written by rnncore: export it with rnncore.export, or say which output each of its states becomes"
    );
  }
  const texts = new Map(own.map(({ key, value }) => [key.slice(PREFIX.length), value]));
  checkVersion(texts.get("format_version"));
  const marks = own.filter(({ key }) => key === PREFIX + "fingerprint");
  if (marks.length !== 1 || marks[0].end - marks[0].start !== 64) {
    throw new TamperedModelError("the file does not hold exactly one rnncore.fingerprint: it was edited after export");
  }
  const [{ start, end, value }] = marks;
  const blank = bytes.slice();
  blank.fill("0".charCodeAt(0), start, end);
  const actual = await sha256(blank);
  if (actual !== value) {
    throw new TamperedModelError(
      `weights or graph were changed after export (fingerprint ${actual.slice(0, 12)}…, the file says ${value.slice(0, 12)}…): copy or export the file again`
    );
  }
  return Object.fromEntries([...texts].map(([name, content]) => [name, parsed(content)]));
}

/** The same from a document that `rnncore inspect --json` wrote; the fingerprint is believed. */
export function readDocument(document) {
  if (typeof document !== "object" || document === null || !("signature" in document)) {
    throw new ModelFileError("the document is not what `rnncore inspect --json` writes: write it again");
  }
  if (!(document.document_version <= DOCUMENT_VERSION)) {
    throw new FormatVersionError(
      `the document has version ${document.document_version}, this module reads versions up to ${DOCUMENT_VERSION}: upgrade it`
    );
  }
  checkVersion(document.format_version);
  return document;
}

function checkVersion(text) {
  const version = Number(text);
  if (!Number.isInteger(version) || version < 1) {
    throw new ModelFileError(`rnncore.format_version in the file is ${JSON.stringify(text)}, expected 1 to ${FORMAT_VERSION}`);
  }
  if (version > FORMAT_VERSION) {
    throw new FormatVersionError(
      `the file has format ${version}, this module reads formats up to ${FORMAT_VERSION}: upgrade it`
    );
  }
}

function parsed(text) {
  if (!/^[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
