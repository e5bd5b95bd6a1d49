/** Arrays as onnxruntime has them, { type, dims, data }, and what is done with them along one axis. */

import { InputError } from "./errors.js";

const KINDS = {
  float16: Float32Array, // numbers, not bits: toHalf and fromHalf stand where they leave and enter
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** The typed array that holds numbers of a dtype; an error that names the dtype if this host has none. */
export function storage(type) {
  const found = KINDS[type];
  if (!found) throw new InputError(`the model has numbers of type ${type}, which this host cannot hold: use ${Object.keys(KINDS).join(", ")}`);
  return found;
}

export const product = (sizes) => sizes.reduce((total, size) => total * size, 1);

export const zeros = (type, dims) => ({ type, dims: [...dims], data: new (storage(type))(product(dims)) });

export function filled(type, dims, value) {
  const array = zeros(type, dims);
  array.data.fill(isBig(type) ? BigInt(value) : value);
  return array;
}

export const isBig = (type) => type === "int64" || type === "uint64";
export const isFloat = (type) => type.startsWith("float");

/**
 * What a caller hands in, as an array of `type`: { dims, data } such as an onnxruntime Tensor, or nested lists of numbers.
 * Numbers are converted where no meaning is lost; `label` begins the messages.
 */
export function readArray(value, type, label) {
  const { dims, data } = isArray(value) ? value : nested(value, label);
  if (!dims.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw new InputError(`${label} has dims [${dims.join(", ")}], expected integers of at least 0`);
  }
  if (product(dims) !== data.length) {
    throw new InputError(`${label} has ${data.length} numbers for dims [${dims.join(", ")}]`);
  }
  const wanted = storage(type);
  if (type !== "float16" && data instanceof wanted && (type === "bool") === (value.type === "bool" || value.type === undefined)) {
    return { type, dims: [...dims], data };
  }
  const whole = !isFloat(type);
  const converted = new wanted(data.length);
  for (let i = 0; i < data.length; i++) {
    const number = data[i];
    const kind = typeof number;
    if (kind !== "number" && kind !== "bigint" && !(kind === "boolean" && type === "bool")) {
      throw new InputError(`${label} holds ${shown(number)}, the model expects numbers (${type})`);
    }
    if (whole && kind === "number" && !Number.isSafeInteger(number)) {
      throw new InputError(`${label} holds ${shown(number)}, the model expects integers (${type})`);
    }
    converted[i] = isBig(type) ? BigInt(number) : type === "float16" ? fromHalf(toHalf(Number(number))) : Number(number);
    if (whole && type !== "bool" && BigInt(converted[i]) !== BigInt(number)) {
      throw new InputError(`${label} holds ${shown(number)}, which does not fit ${type}`);
    }
  }
  return { type, dims: [...dims], data: converted };
}

export const isArray = (value) =>
  value !== null && typeof value === "object" && Array.isArray(value.dims) && ArrayBuffer.isView(value.data);

/** Nested lists or typed arrays as { dims, data }. */
function nested(value, label, depth = 0) {
  if (depth > 16) throw new InputError(`${label} is nested more than 16 deep, expected an array: { dims, data } or nested lists`);
  if (ArrayBuffer.isView(value)) return { dims: [value.length], data: value };
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return { dims: [], data: [value] };
  if (!Array.isArray(value)) throw new InputError(`${label} is ${shown(value)}, expected an array: { dims, data } or nested lists`);
  if (!value.length) return { dims: [0], data: [] };
  const parts = value.map((part) => (isArray(part) ? part : nested(part, label, depth + 1)));
  const [{ dims }] = parts;
  if (parts.some((part) => part.dims.join() !== dims.join())) {
    throw new InputError(`${label} has rows of several sizes: pad them, and hand in lengths`);
  }
  return { dims: [value.length, ...dims], data: parts.flatMap((part) => [...part.data]) };
}

const shown = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value)).slice(0, 60);

/** An array as (outer, size, inner) around one axis. */
function around(dims, axis) {
  return [product(dims.slice(0, axis)), dims[axis], product(dims.slice(axis + 1))];
}

/** Entries begin..end along an axis. */
export function slice({ type, dims, data }, axis, begin, end) {
  const [outer, size, inner] = around(dims, axis);
  const kept = Math.max(0, end - begin);
  const result = zeros(type, dims.map((own, i) => (i === axis ? kept : own)));
  for (let o = 0; o < outer; o++) {
    result.data.set(data.subarray((o * size + begin) * inner, (o * size + begin + kept) * inner), o * kept * inner);
  }
  return result;
}

/** Several arrays one after the other along an axis. */
export function concat(arrays, axis) {
  const [{ type, dims }] = arrays;
  const total = arrays.reduce((sum, array) => sum + array.dims[axis], 0);
  const result = zeros(type, dims.map((own, i) => (i === axis ? total : own)));
  const [outer, , inner] = around(dims, axis);
  let at = 0;
  for (const array of arrays) {
    const size = array.dims[axis];
    for (let o = 0; o < outer; o++) {
      result.data.set(array.data.subarray(o * size * inner, (o + 1) * size * inner), (o * total + at) * inner);
    }
    at += size;
  }
  return result;
}

/** Several arrays side by side along a new axis. */
export const stack = (arrays, axis) => concat(arrays.map((array) => withAxis(array, axis)), axis);

export const withAxis = ({ type, dims, data }, axis) => ({ type, dims: [...dims.slice(0, axis), 1, ...dims.slice(axis)], data });

/** The axes in another order: axis i of the answer is axis order[i] of the array. */
export function transpose({ type, dims, data }, order) {
  const result = zeros(type, order.map((axis) => dims[axis]));
  const strides = order.map((axis) => product(dims.slice(axis + 1)));
  const at = Array(dims.length).fill(0);
  let from = 0;
  for (let i = 0; i < data.length; i++) {
    result.data[i] = data[from];
    for (let axis = at.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++at[axis] < result.dims[axis]) break;
      from -= strides[axis] * result.dims[axis];
      at[axis] = 0;
    }
  }
  return result;
}

/** One entry along an axis, which is gone. */
export function row(array, axis, index) {
  const one = slice(array, axis, index, index + 1);
  return { ...one, dims: one.dims.filter((_, i) => i !== axis) };
}

/** Make entries of each row zero from its length on. */
export function zeroBeyond({ type, dims, data }, batchAxis, timeAxis, lengths) {
  const nought = isBig(type) ? 0n : 0;
  const steps = dims.map((_, axis) => product(dims.slice(axis + 1)));
  for (let i = 0; i < data.length; i++) {
    const at = (axis) => Math.floor(i / steps[axis]) % dims[axis];
    if (at(timeAxis) >= lengths[at(batchAxis)]) data[i] = nought;
  }
}

export function fromBase64(text) {
  const characters = atob(text);
  return Uint8Array.from(characters, (character) => character.charCodeAt(0));
}

/** The bits of the 16-bit float that is nearest to a number, the even one of two. */
export function toHalf(number) {
  if (Number.isNaN(number)) return 0x7e00;
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (size >= 65520) return sign | 0x7c00;
  let power = size < 2 ** -14 ? -14 : Math.floor(Math.log2(size));
  if (power > -14 && 2 ** power > size) power--; // where the logarithm was rounded
  const scaled = (size / 2 ** power) * 1024;
  const whole = Math.floor(scaled);
  const rounded = whole + Number(scaled - whole > 0.5 || (scaled - whole === 0.5 && whole % 2 === 1));
  return sign | (rounded + (power + 14) * 1024); // a mantissa that has become 2048 makes the exponent one larger
}

export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

/** An array as onnxruntime takes it, which wants the bits of 16-bit floats. */
export const bitsOf = ({ type, data }) => (type === "float16" ? Uint16Array.from(data, toHalf) : data);

/** What onnxruntime answers with: bits of 16-bit floats, or an array of the browser's own where it has one. */
export const numbersOf = (type, data) =>
  type !== "float16" ? data : data instanceof Uint16Array ? Float32Array.from(data, fromHalf) : Float32Array.from(data);

export const bytesPerNumber = (type) => (type === "float16" ? 2 : storage(type).BYTES_PER_ELEMENT);

/** Numbers as little-endian bytes. */
export function toBytes(array) {
  const { buffer, byteOffset, byteLength } = bitsOf(array);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Little-endian bytes as numbers; every machine with a browser is little-endian. */
export function fromBytes(bytes, type, dims) {
  if (type === "float16") {
    const { data } = fromBytes(bytes, "uint16", dims);
    return { type, dims: [...dims], data: Float32Array.from(data, fromHalf) };
  }
  const kind = storage(type);
  const size = product(dims) * kind.BYTES_PER_ELEMENT;
  if (bytes.length !== size) throw new InputError(`${bytes.length} bytes for dims [${dims.join(", ")}] of ${type}`);
  return { type, dims: [...dims], data: new kind(bytes.slice().buffer) };
}
