/** A model file, loaded and checked: whole sequences, streams, restored streams. */

import { bitsOf, concat, filled, numbersOf, readArray, slice, zeroBeyond, zeros } from "./arrays.js";
import { InputError, ModelFileError, NotOnnxError, NotStreamableError, raiseAll } from "./errors.js";
import { openForeign, readReading } from "./foreign.js";
import { readDocument, readMetadata } from "./metadata.js";
import { BATCH, Signature, sizeOf, TIME } from "./signature.js";
import { restored } from "./snapshot.js";
import { Stream, pushTogether } from "./stream.js";
import { weightsOf } from "./weights.js";

/**
 * Load a file that rnncore exported, or with `states` one of somebody else.
 *
 * @param ort the module of onnxruntime-web or onnxruntime-node.
 * @param source the bytes of the file, or its URL, or in Node its path.
 * @param options.document what `rnncore inspect --json` wrote, if only onnxruntime may see the bytes.
 * @param options.weights the bytes of the second file, if the model has its weights in one and `source` is no place beside it.
 * @param options.sessionOptions handed to onnxruntime.
 * @param options.states for a file of somebody else: the output that each state becomes, by name of the input; {} if it has none.
 *   With it go axes, initial, constants, chunk and context, as in Python.  See docs/format.md, "Files of others".
 */
export async function load(ort, source, options = {}) {
  const { document = null, weights = null, sessionOptions = {}, ...foreign } = options ?? {};
  if (!ort?.InferenceSession || !ort?.Tensor) {
    throw new InputError("ort is no onnxruntime: import * as ort from 'onnxruntime-web' (or -node), and hand it in");
  }
  const unknown = Object.keys(foreign).filter((name) => !["states", "axes", "initial", "constants", "chunk", "context"].includes(name));
  if (unknown.length) throw new InputError(`load has no option '${unknown[0]}'`);
  const reading = readReading(foreign);
  if (reading) {
    if (document || weights) throw new InputError("a file of somebody else has no document, and its weights in the file itself");
    const bytes = await bytesOf(source);
    const { session, signature, metadata } = await openForeign(ort, bytes, reading, () => sessionOf(ort, bytes, sessionOptions));
    return new Model(ort, session, new Signature(signature), metadata);
  }
  const bytes = document && typeof source === "string" ? null : await bytesOf(source);
  const metadata = document ? readDocument(document) : await readMetadata(bytes);
  if (typeof metadata.signature !== "object") throw new ModelFileError("the file has no rnncore.signature: export it again");
  const signature = new Signature(metadata.signature);
  const beside = metadata.weights ? { externalData: [await weightsOf(metadata.weights, source, weights)] } : {};
  const session = await sessionOf(ort, bytes ?? source, { ...beside, ...sessionOptions });
  checkGraph(session, signature);
  return new Model(ort, session, signature, metadata);
}

export async function sessionOf(ort, source, options) {
  try {
    return await ort.InferenceSession.create(source, { logSeverityLevel: 4, ...options });
  } catch (error) {
    throw new ModelFileError(`onnxruntime does not accept the model: ${readable(error)}`, { cause: error });
  }
}

/** The bytes behind whatever a caller calls a model. */
export async function bytesOf(source) {
  if (source instanceof Uint8Array) return source;
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw new InputError("source is no model: hand in its bytes, its URL, or in Node its path");
  }
  const isNode = typeof process !== "undefined" && process.versions?.node;
  try {
    if (isNode && !/^https?:/.test(String(source))) {
      const { readFile } = await import(/* webpackIgnore: true */ "node:fs/promises");
      return new Uint8Array(await readFile(source));
    }
    const answer = await fetch(source);
    if (!answer.ok) throw new Error(`the server says ${answer.status} ${answer.statusText}`);
    return new Uint8Array(await answer.arrayBuffer());
  } catch (error) {
    throw new NotOnnxError(`${source}: the file cannot be read: ${error.message}`, { cause: error });
  }
}

function checkGraph(session, signature) {
  const inputs = [...signature.inputs, ...signature.states].map((port) => port.name);
  if (signature.lengths) inputs.push(signature.lengths);
  const outputs = [...signature.outputs.map((port) => port.name), ...signature.states.map((state) => state.output)];
  const missing = [
    ...inputs.filter((name) => !session.inputNames.includes(name) && !signature.inputs.some((p) => p.name === name && !p.option)),
    ...outputs.filter((name) => !session.outputNames.includes(name)),
  ];
  raiseAll(missing.map((name) => `'${name}' is in the signature, not in the graph`), ModelFileError, "signature and graph of the file disagree");
}

/** Immutable; any number of streams may be open. */
export class Model {
  #queue = Promise.resolve();

  constructor(ort, session, signature, metadata) {
    Object.assign(this, { ort, session, signature, metadata });
  }

  get inputs() {
    return this.signature.inputs.map((port) => port.name);
  }

  get outputs() {
    return this.signature.outputs.map((port) => port.name);
  }

  get causal() {
    return this.signature.causal;
  }

  get fingerprint() {
    return this.metadata.fingerprint;
  }

  /**
   * Run whole sequences, each from the initial state: an array [batch, time, ...] for each input, by name.  Options may be
   * left out, and one number stands for all rows.  `lengths`: valid steps of each row.  Answers by name, zero beyond them.
   */
  async run(inputs, options = {}) {
    const { lengths = null } = options ?? {};
    const { signature } = this;
    const problems = [];
    const sizes = {};
    const arrays = readInputs(signature, inputs, problems, (port, given) => {
      const array = port.folded(given, port.inner);
      const own = port.read(array, port.inner, `input '${port.name}'`, problems);
      agree(sizes, own, signature, port.name, problems);
      return array;
    });
    raiseAll(problems);
    const batch = sizes[BATCH] ?? 1;
    const steps = sizes[TIME] ?? 1;
    if (batch === 0) throw new InputError("the batch is empty: hand in at least one sequence");
    this.#readOptions(arrays, inputs, batch, problems);
    signature.checkSizes(sizes, problems);
    signature.checkFollowers(arrays, sizes, problems);
    raiseAll(problems);
    const counts = lengths === null ? null : this.#readLengths(lengths, batch, steps);
    return this.#whole(arrays, sizes, counts);
  }

  /** Open a stream at the initial state. */
  stream() {
    if (!this.causal) throw new NotStreamableError(`this model does not stream: ${this.signature.notCausalBecause}`);
    return new Stream(this);
  }

  /**
   * Push to several streams at once, `inputs[i]` to `streams[i]`: those that bring arrays of equal sizes share one call of the graph.
   * Answers in the same order.  After an error every stream is where it was.
   */
  async pushMany(streams, inputs) {
    return pushTogether(this, streams, inputs);
  }

  /** Open a stream where `save` left one, here or in Python. */
  async restore(blob) {
    return restored(this.stream(), blob);
  }

  async release() {
    await this.session.release?.();
  }

  /**
   * One call of the graph: every input whole, states by input name, lengths or null.  Answers and final states by name.
   * Calls wait for each other: onnxruntime-web runs one at a time.
   */
  call(arrays, states, lengths, batch, steps, sizes) {
    const { ort, signature } = this;
    const feeds = {};
    const put = (name, array) => (feeds[name] = new ort.Tensor(array.type, bitsOf(array), array.dims));
    for (const port of signature.inputs) {
      if (port.name in arrays) put(port.name, arrays[port.name]);
      else if (port.option) put(port.name, port.leftOut(batch));
    }
    for (const [name, array] of Object.entries(states)) put(name, array);
    if (signature.lengths) {
      const counts = lengths ?? Array(batch).fill(steps);
      put(signature.lengths, { type: "int64", dims: [batch], data: BigInt64Array.from(counts, BigInt) });
    }
    const { pick } = signature;
    if (pick && this.session.inputNames.includes(pick.at)) put(pick.at, zeros("int64", [batch, steps, 1]));
    const names = [...signature.outputs.map((port) => port.name), ...signature.states.map((state) => state.output)];
    const running = this.#queue.then(() => this.session.run(feeds, names));
    this.#queue = running.catch(() => {});
    return running.then(
      (values) => {
        const results = {};
        for (const name of names) {
          const { type, dims, data } = values[name];
          results[name] = { type, dims: [...dims], data: numbersOf(type, data) };
        }
        for (const port of signature.outputs) unflatten(port, results[port.name], { ...sizes, [BATCH]: batch, [TIME]: steps });
        return results;
      },
      (error) => {
        throw new InputError(`onnxruntime could not run the model on this input: ${readable(error)}`, { cause: error });
      }
    );
  }

  starts(batch) {
    return Object.fromEntries(this.signature.states.map((state) => [state.name, state.start(batch)]));
  }

  outputsOf(values) {
    return Object.fromEntries(this.signature.outputs.map((port) => [port.name, values[port.name]]));
  }

  /** Outputs for no step at all, with a batch axis; `null` for those that nobody can tell. */
  async withoutSteps(arrays, states, batch, sizes) {
    const { signature } = this;
    if (signature.timelessOutputs.length && !signature.lengths) {
      throw new InputError(
        `a sequence without steps has no answer: output '${signature.timelessOutputs[0]}' needs at least one`
      );
    }
    const blank = Object.fromEntries(
      signature.inputs
        .filter((port) => port.name in arrays)
        .map((port) => {
          const array = arrays[port.name];
          const dims = array.dims.map((size, axis) => (axis === port.timeAxis ? port.steps(signature.mostWaiting + 1) : size));
          return [port.name, port.timed ? filled(array.type, dims, port.blank) : array];
        })
    );
    const values = await this.call(blank, states, Array(batch).fill(0), batch, signature.mostWaiting + 1, { ...sizes, [TIME]: signature.mostWaiting + 1 });
    const outputs = this.outputsOf(values);
    for (const port of signature.outputs) {
      if (port.timed) outputs[port.name] = slice(outputs[port.name], port.timeAxis, 0, 0);
    }
    return outputs;
  }

  async #whole(arrays, sizes, lengths) {
    const { signature } = this;
    const batch = sizes[BATCH] ?? 1;
    const steps = sizes[TIME] ?? 1;
    if (signature.timed && steps === 0) return this.withoutSteps(arrays, this.starts(batch), batch, sizes);
    const aligned = lengths === null || lengths.every((length) => (length - signature.overlap) % signature.stride === 0);
    const harmless = signature.causal && !signature.timelessOutputs.length && aligned;
    if (lengths !== null && !signature.lengths && !harmless) return this.#rowByRow(arrays, sizes, lengths);
    const outputs = this.outputsOf(await this.call(arrays, this.starts(batch), lengths, batch, steps, sizes));
    if (lengths !== null) {
      for (const port of signature.outputs) {
        if (port.timed) zeroBeyond(outputs[port.name], port.batchAxis, port.timeAxis, lengths.map((n) => port.steps(n)));
      }
    }
    return outputs;
  }

  /** For a file that cannot tell padding from data. */
  async #rowByRow(arrays, sizes, lengths) {
    const { signature } = this;
    const rows = [];
    for (const [index, length] of lengths.entries()) {
      const own = {};
      for (const port of signature.inputs) {
        const one = slice(arrays[port.name], port.batchAxis, index, index + 1);
        own[port.name] = port.timed ? slice(one, port.timeAxis, 0, port.steps(length)) : one;
      }
      rows.push(await this.#whole(own, { ...sizes, [BATCH]: 1, [TIME]: length }, null));
    }
    const outputs = {};
    for (const port of signature.outputs) {
      const steps = port.timed ? port.steps(sizes[TIME]) : 0;
      const padded = rows.map(({ [port.name]: one }) => {
        if (!port.timed) return one;
        const missing = one.dims.map((size, axis) => (axis === port.timeAxis ? steps - size : size));
        return concat([one, zeros(one.type, missing)], port.timeAxis);
      });
      outputs[port.name] = concat(padded, port.batchAxis);
    }
    return outputs;
  }

  #readOptions(arrays, inputs, batch, problems) {
    for (const port of this.signature.inputs) {
      if (!port.option) continue;
      const value = inputs[port.name];
      if (value === undefined) arrays[port.name] = port.leftOut(batch);
      else {
        const label = `input '${port.name}'`;
        const read = readArray(value, port.type, label);
        const array = read.dims.length ? read : filled(port.type, [batch], read.data[0]);
        const own = port.read(array, port.inner, label, problems);
        if (own[BATCH] !== undefined && own[BATCH] !== batch) problems.push(`${label} has ${own[BATCH]} rows, the others have ${batch}`);
        arrays[port.name] = array;
      }
    }
  }

  #readLengths(lengths, batch, steps) {
    if (!this.signature.timed) throw new InputError("lengths were given, but no input of this model has a time axis");
    const { dims, data } = readArray(lengths, "int64", "lengths");
    const counts = [...data].map(Number);
    if (dims.length !== 1 || dims[0] !== batch) throw new InputError(`lengths have shape [${dims.join(", ")}], expected [${batch}]`);
    const problems = counts.flatMap((n, i) => (n < 0 || n > steps ? [`lengths[${i}] is ${n}, expected 0 to ${steps}`] : []));
    if (!problems.length) counts.forEach((n, i) => this.signature.checkSizes({ [TIME]: n }, problems, ` in row ${i}`));
    raiseAll(problems);
    return counts.every((n) => n === steps) ? null : counts;
  }
}

/** The arrays of all inputs but options, as `check` returns each; every missing and unknown one is a problem. */
export function readInputs(signature, inputs, problems, check) {
  const names = signature.inputs.map((port) => port.name);
  if (typeof inputs !== "object" || inputs === null || Array.isArray(inputs) || "dims" in inputs) {
    throw new InputError(`inputs go by name: { ${names.join(", ")} }`);
  }
  for (const name of Object.keys(inputs)) {
    if (!names.includes(name)) problems.push(`there is no input '${name}', expected ${names.join(", ")}`);
  }
  const arrays = {};
  for (const port of signature.inputs) {
    if (port.option) continue;
    if (inputs[port.name] === undefined) {
      problems.push(`input '${port.name}' is missing, expected ${names.join(", ")}`);
      continue;
    }
    try {
      arrays[port.name] = check(port, readArray(inputs[port.name], port.type, `input '${port.name}'`));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      problems.push(error.message);
    }
  }
  return arrays;
}

/** Put the sizes of one input to those of the others; axes that have limits, batch and time must agree. */
export function agree(sizes, own, signature, name, problems) {
  for (const [axis, size] of Object.entries(own)) {
    const tied = axis === BATCH || axis === TIME || signature.axes.has(axis);
    if (tied && axis in sizes && sizes[axis] !== size) {
      problems.push(`input '${name}' has size ${size} along axis '${axis}', the inputs before it have ${sizes[axis]}`);
    }
    sizes[axis] = size;
  }
}

/** Two axes where the graph has them as one. */
function unflatten(port, result, sizes) {
  if (port.inner.length === port.shape.length) return;
  result.dims = port.shape.flatMap((size, axis) =>
    typeof size === "object" && size.flat ? size.flat.map((part) => sizeOf(part, sizes)) : [result.dims[axis]]
  );
}

const readable = (error) => String(error?.message ?? error).replace(/\S*\/onnxruntime\S*\.(cc|h):\d+ /g, "").split("\n")[0];
