/**
 * Files that rnncore did not write: what the caller says of their states becomes a signature, and their session looks like one of
 * ours, with arrays [batch, time, ...] and states [batch, ...].  See docs/format.md, "Files of others".
 */

import { AdaptedSession, READINGS } from "./adapter.js";
import { bitsOf, product, readArray, zeros } from "./arrays.js";
import { ForeignModelError, InputError, raiseAll } from "./errors.js";
import { graphOf } from "./graph.js";
import { isOurs } from "./metadata.js";
import { sha256 } from "./sha256.js";
import { BATCH, TIME, shapeText } from "./signature.js";

const STEPS = [[5, 7], [61, 67], [1009, 1013]]; // some graphs, with convolutions in front, need so many steps at least
const word = (size) => (typeof size === "number" ? size : size === BATCH || size === TIME ? `${size}?` : size ?? "?");

/** The checked arguments of `load`, null if the file is to be one of rnncore. */
export function readReading({ states = null, axes = {}, initial = {}, constants = {}, chunk = null, context = 0 }) {
  const given = { axes, initial, constants };
  const problems = [];
  for (const [name, value] of Object.entries({ states: states ?? {}, ...given })) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) problems.push(`${name} is ${value}, expected an object by name of input or output`);
  }
  raiseAll(problems);
  if (states === null) {
    const others = Object.keys(given).filter((name) => Object.keys(given[name]).length);
    if (chunk !== null) others.push("chunk");
    if (context !== 0) others.push("context");
    if (others.length) throw new InputError(`${others.join(", ")} without states: a file that rnncore wrote knows these by itself`);
    return null;
  }
  if (chunk !== null && !(Number.isInteger(chunk) && chunk >= 1)) problems.push(`chunk is ${chunk}, expected an integer of at least 1, or null`);
  if (!(Number.isInteger(context) && context >= 0)) problems.push(`context is ${context}, expected an integer of at least 0`);
  for (const [name, text] of Object.entries(axes)) {
    if (typeof text !== "string") problems.push(`axes.${name} is ${text}, expected a text such as 'batch time features'`);
    else for (const one of [BATCH, TIME]) if (text.split(/\s+/).filter((own) => own === one).length > 1) problems.push(`axes.${name} says '${one}' twice`);
  }
  for (const [name, output] of Object.entries(states)) {
    if (typeof output !== "string") problems.push(`states.${name} is ${output}, expected the name of an output`);
  }
  raiseAll(problems);
  const words = Object.fromEntries(Object.entries(axes).map(([name, text]) => [name, text.split(/\s+/).filter(Boolean)]));
  return { states, axes: words, initial, constants, chunk, context };
}

/** { session, signature, metadata } of a foreign file: its session adapted, and what a file of ours would say of it. */
export async function openForeign(ort, bytes, reading, open) {
  if (isOurs(bytes)) throw new InputError("this file was written by rnncore and knows its states: load it without states");
  const graph = graphOf(bytes);
  const problems = nameProblems(reading, graph);
  raise(problems, graph);
  const read = readInputs(reading, graph, problems);
  raise(problems, graph);
  const session = await open();
  const outputs = await readOutputs(ort, session, reading, graph, read, problems);
  raise(problems, graph);
  const adapter = { ...read, outputs };
  const signature = signatureOf(adapter, graph, reading);
  const fingerprint = await fingerprintOf(bytes, reading, signature);
  return { session: new AdaptedSession(ort, session, adapter), signature, metadata: { fingerprint } };
}

function raise(problems, { inputs, outputs }) {
  if (!problems.length) return;
  const listed = (values) => values.map(({ name, type, dims }) => `${name} ${type ?? "no tensor"}${dims ? shapeText(dims.map((size) => size ?? "?")) : ""}`).join(", ");
  raiseAll([...problems, `its inputs are ${listed(inputs)}`, `its outputs are ${listed(outputs)}`], ForeignModelError, "the model cannot be read as it was said");
}

function nameProblems({ states, axes, initial, constants }, graph) {
  const [inputs, outputs] = [graph.inputs, graph.outputs].map((values) => new Set(values.map(({ name }) => name)));
  const problems = [];
  const targets = Object.values(states);
  for (const [name, output] of Object.entries(states)) {
    if (!inputs.has(name)) problems.push(`there is no input '${name}' to be a state`);
    if (!outputs.has(output)) problems.push(`there is no output '${output}' for the state '${name}'`);
    else if (targets.indexOf(output) !== targets.lastIndexOf(output)) problems.push(`the output '${output}' is used for several states`);
    if (name in constants) problems.push(`'${name}' is a state and a constant`);
  }
  for (const name of Object.keys(constants)) if (!inputs.has(name)) problems.push(`there is no input '${name}' to be constant`);
  for (const name of Object.keys(initial)) if (!(name in states)) problems.push(`initial is given for '${name}', which is no state`);
  for (const name of Object.keys(axes)) if (!inputs.has(name) && !outputs.has(name)) problems.push(`axes are given for '${name}', which is no input or output`);
  return problems;
}

/** Sizes and names of the axes of a value; the names batch and time mean nothing when the graph says them. */
function dimsOf({ axes }, { name, dims, type }, problems) {
  if (type === null) problems.push(`'${name}' holds no numbers that this module can handle`);
  const words = axes[name];
  const found = dims ? dims.map(word) : (words ?? []).map(() => "?");
  if (!words) return found;
  if (words.length !== found.length) {
    problems.push(`axes.${name} names ${words.length} axes, the graph has ${found.length}: ${shapeText(found)}`);
    return found;
  }
  const told = words.map((own, axis) => (/^\d+$/.test(own) ? Number(own) : found[axis]));
  if (told.every((size, axis) => typeof size !== "number" || typeof found[axis] !== "number" || size === found[axis])) return told;
  problems.push(`axes.${name} says ${shapeText(told)}, the graph has ${shapeText(found)}`);
  return found;
}

/** A port is { name, type, dims, batch, time }: sizes in the graph, "batch" and "time" where these are free; positions of the two, or -1. */
function portOf(reading, value, batch, time, problems) {
  const dims = dimsOf(reading, value, problems);
  const words = reading.axes[value.name];
  const named = words?.length === dims.length;
  const port = { name: value.name, type: value.type, dims, batch: named ? words.indexOf(BATCH) : batch(dims), time: named ? words.indexOf(TIME) : time(dims) };
  if (port.batch >= 0 && typeof dims[port.batch] !== "number") dims[port.batch] = BATCH;
  if (port.time >= 0 && typeof dims[port.time] !== "number") dims[port.time] = TIME;
  return port;
}

function readInputs(reading, { inputs, defaults }, problems) {
  const { states: pairs, axes, context } = reading;
  const isFree = (size) => typeof size !== "number";
  const states = Object.keys(pairs).map((name) => readState(reading, inputs.find((one) => one.name === name), problems));
  const constants = {};
  for (const [name, value] of Object.entries(reading.constants)) constants[name] = readConstant(value, inputs.find((one) => one.name === name), problems);
  const pushed = inputs.filter(({ name }) => !(name in pairs) && !(name in constants) && (!defaults.has(name) || name in axes));
  if (!pushed.length) problems.push("every input is a state or a constant: there is nothing left to push");
  const batchNames = new Set(states.filter(({ batch }) => batch >= 0).map(({ name, batch }) => inputs.find((one) => one.name === name).dims?.[batch]));
  const alone = states.some(isAlone);
  const likely = (value) => (dims) => {
    const same = (value.dims ?? []).findIndex((size) => typeof size === "string" && batchNames.has(size));
    return same >= 0 ? same : dims.length && (dims[0] === 1 || (!alone && isFree(dims[0]))) ? 0 : -1;
  };
  const ports = pushed.map((value) => portOf(reading, value, likely(value), () => -1, problems));
  for (const port of ports) if (!port.dims.length) problems.push(`input '${port.name}' is a single number: say constants: { ${port.name}: value }`);
  findTime(reading, ports, isFree);
  for (const { name, batch, dims } of [...ports, ...states]) {
    if (batch >= 0 && ![BATCH, 1].includes(dims[batch])) problems.push(`the batch axis of '${name}' has the fixed size ${dims[batch]}, expected a free one or 1: name its axes`);
  }
  const sizes = chunkSizes(reading, ports, problems);
  for (const port of ports) if (port.name in sizes) port.dims[port.time] = sizes[port.name] + context;
  const timed = new Set(ports.filter(({ time }) => time >= 0).map(({ name }) => name));
  const contexts = context ? Object.keys(sizes).map((input) => ({ input, state: `${input}.context`, size: context })) : [];
  for (const { state } of contexts) if (inputs.some(({ name }) => name === state)) problems.push(`context needs the name '${state}', which an input has`);
  return {
    ports, states, contexts, constants,
    timed: timed.size ? timed : new Set(ports.map(({ name }) => name)),
    hasTime: timed.size > 0,
    chunks: Object.fromEntries(Object.entries(sizes).filter(([, size]) => size > 1 || context)),
    chunked: Object.keys(sizes).length > 0 || !timed.size,
    alone: [...ports, ...states].some(isAlone),
  };
}

const isAlone = ({ batch, dims }) => batch < 0 || dims[batch] === 1;

/** Time axes of inputs of which the caller names no axes: the first free one, else that of a chunk of fixed size. */
function findTime({ axes, chunk, context }, ports, isFree) {
  const silent = ports.filter(({ name }) => !(name in axes));
  const others = (port) => port.dims.map((_, axis) => axis).filter((axis) => axis !== port.batch);
  for (const port of silent) {
    port.time = others(port).find((axis) => isFree(port.dims[axis])) ?? -1;
    if (port.time >= 0) port.dims[port.time] = TIME;
  }
  if (ports.some(({ time }) => time >= 0)) return;
  for (const port of silent) {
    const left = others(port);
    if (left.length > 1 || (left.length && (chunk || context))) port.time = left[0];
  }
}

/** Samples of one call, without the context, of each input whose chunks have a fixed size. */
function chunkSizes({ chunk, context }, ports, problems) {
  const sizes = {};
  const timed = ports.filter(({ time }) => time >= 0);
  for (const { name, dims, time } of timed) {
    const size = dims[time];
    if (typeof size === "number") {
      sizes[name] = size - context;
      if (sizes[name] < 1) problems.push(`input '${name}' takes ${size} samples, context ${context} leaves none`);
      else if (chunk !== null && chunk !== sizes[name]) problems.push(`input '${name}' takes ${size} samples a call, not chunk ${chunk} and context ${context}`);
    } else if (chunk !== null) sizes[name] = chunk;
  }
  const free = timed.find(({ name }) => !(name in sizes));
  if (free && Object.keys(sizes).length) problems.push(`input '${free.name}' takes any number of steps, others a fixed one: say chunk`);
  if (!Object.keys(sizes).length && (chunk !== null || context)) problems.push("chunk and context need an input with a time axis, and context a chunk of fixed size");
  return sizes;
}

/** A state with its batch axis; that of a graph without free axes is the first of size 1, if there is one. */
function readState(reading, value, problems) {
  const first = (dims) => dims.findIndex((size) => typeof size !== "number");
  const port = portOf(reading, value, (dims) => (first(dims) >= 0 ? first(dims) : dims.indexOf(1)), () => -1, problems);
  const initial = reading.initial[port.name];
  const rest = port.dims.map((_, axis) => axis).filter((axis) => axis !== port.batch);
  let start = null;
  if (initial !== undefined && port.type !== null) {
    start = readArray(initial, port.type, `initial.${port.name}`);
    const fits = start.dims.length === rest.length && rest.every((axis, i) => typeof port.dims[axis] !== "number" || port.dims[axis] === start.dims[i]);
    if (fits) rest.forEach((axis, i) => (port.dims[axis] = start.dims[i]));
    else problems.push(`initial.${port.name} has shape ${shapeText(start.dims)}, one sequence has ${shapeText(rest.map((axis) => port.dims[axis]))}`);
  }
  const item = rest.map((axis) => port.dims[axis]);
  if (item.some((size) => typeof size !== "number")) {
    problems.push(`the size of state '${port.name}' ${shapeText(port.dims)} is not known: say which axis is the batch and the sizes of others, axes: { ${port.name}: '… batch …' }`);
  }
  return { ...port, output: reading.states[port.name], item, start };
}

function readConstant(given, { name, type, dims }, problems) {
  if (type === null) return problems.push(`the constant '${name}' holds no numbers that this module can handle`), null;
  const array = readArray(given, type, `constants.${name}`);
  if (dims && !(dims.length === array.dims.length && dims.every((size, axis) => typeof size !== "number" || size === array.dims[axis]))) {
    problems.push(`constants.${name} has shape ${shapeText(array.dims)}, the graph has ${shapeText(dims.map(word))}`);
  }
  return array;
}

/** Ports of all outputs that are no states, learnt by running the graph twice on zeros of different sizes. */
async function readOutputs(ort, session, reading, { outputs }, read, problems) {
  const own = outputs.filter(({ name }) => !read.states.some(({ output }) => output === name));
  if (!own.length) problems.push("every output is a state: there is nothing to return");
  if (problems.length) return [];
  const samples = await sampled(ort, session, read, [...own.map(({ name }) => name), ...read.states.map(({ output }) => output)], problems);
  if (!samples) return [];
  for (const state of read.states) {
    for (const { batch, shapes } of samples) {
      const expected = state.dims.map((size) => (size === BATCH ? batch : size));
      if (shapes[state.output].join() === expected.join()) continue;
      problems.push(`state '${state.name}' goes in as ${shapeText(expected)}, '${state.output}' comes out as ${shapeText(shapes[state.output])}: pair other names, or say its axes`);
      break;
    }
  }
  return own.map((value) => readOutput(reading, value, read, samples, problems));
}

async function sampled(ort, session, read, names, problems) {
  let told = "";
  for (const pair of read.chunked ? [[1, 1]] : STEPS) {
    const samples = [];
    try {
      for (const [i, steps] of pair.entries()) {
        const batch = read.alone ? 1 : 2 + i;
        const feeds = {};
        const put = (name, array) => (feeds[name] = new ort.Tensor(array.type, bitsOf(array), array.dims));
        for (const [name, array] of Object.entries(read.constants)) put(name, array);
        for (const { name, type, dims } of [...read.ports, ...read.states]) {
          put(name, zeros(type, dims.map((size) => (typeof size === "number" ? size : size === BATCH ? batch : size === TIME ? steps : 1))));
        }
        const values = await session.run(feeds, names);
        samples.push({ batch, steps, shapes: Object.fromEntries(names.map((name) => [name, [...values[name].dims]])) });
      }
      return samples;
    } catch (error) {
      told = String(error?.message ?? error).split("\n")[0];
    }
  }
  problems.push(`onnxruntime could not run it on zeros: ${told}`);
  return null;
}

function readOutput({ axes }, { name, type }, read, [one, two], problems) {
  const [first, second] = [one.shapes[name], two.shapes[name]];
  const words = axes[name];
  if (type === null) problems.push(`output '${name}' holds no numbers that this module can handle`);
  if (first.length !== second.length || (words && words.length !== first.length)) {
    problems.push(`output '${name}' has shape ${shapeText(first)}, then ${shapeText(second)}${words ? `, axes.${name} names ${words.length} axes` : ""}`);
    return { name, type, dims: [], batch: -1, time: -1 };
  }
  const follow = (key) => first.map((_, axis) => axis).filter((axis) => first[axis] === one[key] && second[axis] === two[key]);
  const rows = follow("batch");
  const batch = words ? words.indexOf(BATCH) : read.alone ? (rows[0] === 0 ? 0 : -1) : rows[0] ?? -1;
  if (batch < 0 ? !read.alone : !rows.includes(batch)) problems.push(`output '${name}' has no batch axis: ${shapeText(first)} from a batch of ${one.batch}: say its axes`);
  const steps = follow("steps").filter((axis) => axis !== batch);
  const single = read.ports.filter((port) => port.time >= 0 && !(port.name in read.chunks)).map(({ time }) => time);
  let time = words ? words.indexOf(TIME) : read.chunked ? (single.length && steps.includes(single[0]) ? single[0] : -1) : steps[0] ?? -1;
  if (words && time >= 0 && !steps.includes(time)) {
    if (read.chunked) time = -1; // several samples for each chunk: an axis like any other
    else problems.push(`axes.${name} calls axis ${time} time, but it has ${first[time]} of ${one.steps} steps`);
  }
  const dims = first.map((size, axis) => {
    if (axis === batch) return read.alone ? 1 : BATCH;
    if (axis === time && !read.chunked) return TIME;
    if (size !== second[axis]) problems.push(`output '${name}' has size ${size} after ${one.steps} steps and ${second[axis]} after ${two.steps}: this module reads outputs that are as long as their input`);
    return size;
  });
  return { name, type, dims, batch, time };
}

function signatureOf(adapter, { outputs }, { states: pairs }) {
  const port = ({ name, type, dims, batch, time }) => {
    const rest = dims.filter((_, axis) => axis !== batch && axis !== time);
    if (!adapter.hasTime) return { name, dtype: type, shape: [BATCH, TIME, ...rest] };
    if (time < 0) return { name, dtype: type, shape: [BATCH, ...rest] };
    if (!(name in adapter.chunks)) return { name, dtype: type, shape: [BATCH, TIME, ...rest] };
    return { name, dtype: type, shape: [BATCH, TIME, adapter.chunks[name], ...rest], chunk: adapter.chunks[name] };
  };
  const output = ({ name, type, dims, batch, time }) => {
    const rest = dims.filter((_, axis) => axis !== batch && axis !== time);
    return { name, dtype: type, shape: adapter.chunked || time >= 0 ? [BATCH, TIME, ...rest] : [BATCH, ...rest] };
  };
  const inputs = adapter.ports.map(port);
  const states = adapter.states.map(({ name, output: target, type, item, start }) => ({
    name, output: target, dtype: type, size: product(item), shape: [BATCH, ...item], start,
  }));
  for (const { input, state, size } of adapter.contexts) {
    const { dtype, shape } = inputs.find(({ name }) => name === input);
    const item = [size, ...shape.slice(3)];
    states.push({ name: state, output: state, dtype, size: product(item), shape: [BATCH, ...item] });
  }
  return {
    inputs, states, outputs: adapter.outputs.map(output),
    causal: Object.keys(pairs).length > 0, not_causal_because: "it was loaded as a model without states, states: {}",
  };
}

/** The same bytes read in two ways are two models: a state saved under one reading must not go on under another. */
async function fingerprintOf(bytes, reading, signature) {
  const plain = (_, value) => (typeof value === "bigint" ? `${value}n` : ArrayBuffer.isView(value) ? [...value].map(String) : value);
  const said = JSON.stringify([READINGS, await sha256(bytes), reading, signature], plain);
  return sha256(new TextEncoder().encode(said));
}
