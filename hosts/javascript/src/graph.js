/** Inputs and outputs of the graph of an ONNX file, read from its bytes: names, dtypes, sizes. */

import { fields } from "./metadata.js";

const GRAPH = 7;
const [INITIALIZER, INPUT, OUTPUT] = [5, 11, 12];
const TENSOR_NAME = 8;
const TYPES = {
  1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
  9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
};

/**
 * { inputs, outputs, defaults }: values { name, type, dims } and the names of inputs that have a default in the graph.  `type` is
 * null for what is no tensor of numbers, `dims` is null where the graph says no rank; one size is a number, a name, or null.
 */
export function graphOf(bytes) {
  const graph = { inputs: [], outputs: [], defaults: new Set() };
  for (const [number, start, end] of fields(bytes, 0, bytes.length)) {
    if (number !== GRAPH) continue;
    for (const [part, a, b] of fields(bytes, start, end)) {
      if (part === INPUT) graph.inputs.push(valueOf(bytes, a, b));
      if (part === OUTPUT) graph.outputs.push(valueOf(bytes, a, b));
      if (part === INITIALIZER) graph.defaults.add(textOf(bytes, a, b, TENSOR_NAME));
    }
  }
  return graph;
}

function valueOf(bytes, start, end) {
  const value = { name: textOf(bytes, start, end, 1), type: null, dims: null };
  // ValueInfoProto.type (2), TypeProto.tensor_type (1): elem_type (1) and shape (2)
  for (const [, a, b] of only(bytes, start, end, 2)) {
    for (const [, c, d] of only(bytes, a, b, 1)) {
      for (const [, e, f] of only(bytes, c, d, 1)) value.type = TYPES[varint(bytes, e, f)] ?? null;
      for (const [, e, f] of only(bytes, c, d, 2)) value.dims = [...only(bytes, e, f, 1)].map(([, g, h]) => sizeOf(bytes, g, h));
    }
  }
  return value;
}

/** TensorShapeProto.Dimension: dim_value (1) or dim_param (2); 0 and less are no sizes. */
function sizeOf(bytes, start, end) {
  for (const [number, a, b] of fields(bytes, start, end)) {
    if (number === 1) return varint(bytes, a, b) || null;
    if (number === 2) return new TextDecoder().decode(bytes.subarray(a, b)) || null;
  }
  return null;
}

function* only(bytes, start, end, wanted) {
  for (const field of fields(bytes, start, end)) if (field[0] === wanted) yield field;
}

function textOf(bytes, start, end, wanted) {
  for (const [, a, b] of only(bytes, start, end, wanted)) return new TextDecoder().decode(bytes.subarray(a, b));
  return "";
}

function varint(bytes, start, end) {
  let value = 0;
  for (let at = start, scale = 1; at < end; at++, scale *= 128) value += (bytes[at] & 127) * scale;
  return value;
}
