/** The state of a stream as bytes: those that rnncore.runtime writes and reads.  See docs/format.md, "A saved stream". */

import { bytesPerNumber, fromBytes, product, slice, toBytes, zeros } from "./arrays.js";
import { SnapshotError } from "./errors.js";
import { plain } from "./sha256.js";

const MAGIC = "RNNSTATE";
const VERSION = 1;

/** What is saved, in order: name, type, array of one sequence. */
function parts(stream) {
  const { signature } = stream.model;
  const states = signature.states.map((state) => [state.name, state.type, stream.states[state.name]]);
  if (signature.mostWaiting === 0) return states;
  for (const port of signature.inputs.filter((one) => one.timed)) {
    const dims = port.itemShape.map((size, axis) => (axis === port.itemTimeAxis ? signature.mostWaiting : size));
    const waiting = stream.rest[port.name];
    const kept = zeros(port.type, dims);
    const count = waiting ? waiting.dims[port.itemTimeAxis] : 0;
    if (waiting) place(kept, waiting, port.itemTimeAxis);
    states.push([`${port.name}.rest`, port.type, kept]);
    states.push([`${port.name}.rest.steps`, "int64", { type: "int64", dims: [1], data: BigInt64Array.of(BigInt(count)) }]);
  }
  return states;
}

function place(target, source, axis) {
  const inner = product(target.dims.slice(axis + 1));
  const [into, from] = [target.dims[axis] * inner, source.dims[axis] * inner];
  for (let o = 0; o < source.data.length / Math.max(from, 1); o++) {
    target.data.set(source.data.subarray(o * from, (o + 1) * from), o * into);
  }
}

const described = (stream) => parts(stream).map(([name, type, { data }]) => [name, type, data.length]);

export function saved(stream) {
  const header = new TextEncoder().encode(
    JSON.stringify({ fingerprint: stream.model.fingerprint, steps: stream.steps, states: described(stream) })
  );
  const values = parts(stream).map(([, , array]) => toBytes(array));
  const size = values.reduce((sum, one) => sum + one.length, 16 + header.length);
  const body = new Uint8Array(size);
  body.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(body.buffer);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, header.length, true);
  body.set(header, 16);
  let at = 16 + header.length;
  for (const one of values) {
    body.set(one, at);
    at += one.length;
  }
  const whole = new Uint8Array(size + 32);
  whole.set(body);
  whole.set(plain(body), size);
  return whole;
}

/** The stream, moved to where `blob` was saved. */
export function restored(stream, blob) {
  const bytes = blob instanceof Uint8Array ? blob : new Uint8Array(blob);
  const text = new TextDecoder();
  if (text.decode(bytes.subarray(0, 8)) !== MAGIC) throw new SnapshotError("these bytes are no saved state of rnncore");
  if (bytes.length < 48) throw new SnapshotError(`the saved state is cut short: ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (view.getUint32(8, true) > VERSION) throw new SnapshotError("the saved state is of a newer format: upgrade this module");
  const body = bytes.subarray(0, bytes.length - 32);
  const digest = plain(body);
  if (!digest.every((byte, i) => byte === bytes[body.length + i])) {
    throw new SnapshotError("the saved state is cut short or was altered: its checksum does not match");
  }
  const end = 16 + view.getUint32(12, true);
  let header;
  try {
    header = JSON.parse(text.decode(body.subarray(16, end)));
  } catch {
    throw new SnapshotError("the header of the saved state cannot be read: it was not made by rnncore");
  }
  if (header.fingerprint !== stream.model.fingerprint) {
    throw new SnapshotError("the saved state belongs to another model: load the model that saved it, or open a new stream");
  }
  if (JSON.stringify(header.states) !== JSON.stringify(described(stream)) || !Number.isSafeInteger(header.steps)) {
    throw new SnapshotError("the saved state lists other states than this model has: it was not made by rnncore");
  }
  const { signature } = stream.model;
  const values = {};
  let at = end;
  for (const [name, type, size] of header.states) {
    const bytes = size * bytesPerNumber(type);
    values[name] = fromBytes(body.subarray(at, at + bytes), type, [size]).data;
    at += bytes;
  }
  stream.states = Object.fromEntries(
    signature.states.map((state) => [state.name, { ...stream.states[state.name], data: values[state.name] }])
  );
  if (signature.mostWaiting > 0) {
    for (const port of signature.inputs.filter((one) => one.timed)) {
      const dims = port.itemShape.map((size, axis) => (axis === port.itemTimeAxis ? signature.mostWaiting : size));
      const count = Number(values[`${port.name}.rest.steps`][0]);
      if (!(count >= 0 && count <= signature.mostWaiting)) {
        throw new SnapshotError("the saved state has more waiting steps than a stream keeps: it was not made by rnncore");
      }
      const kept = { type: port.type, dims, data: values[`${port.name}.rest`] };
      stream.rest[port.name] = count ? slice(kept, port.itemTimeAxis, 0, count) : null;
    }
  }
  stream.steps = header.steps;
  return stream;
}
