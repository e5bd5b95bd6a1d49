/** A signature made ready for work: sizes of axes, positions of batch and time, options, states.  See docs/format.md. */

import { filled, fromBase64, fromBytes, isFloat, product, storage, zeros } from "./arrays.js";
import { InputError, ModelFileError } from "./errors.js";

export const BATCH = "batch";
export const TIME = "time";

const baseOf = (size) => (typeof size === "object" ? size.of : typeof size === "string" ? size : null);

/** A size as a number: fixed, named, or a function of a named one. */
export function sizeOf(size, sizes) {
  if (typeof size === "number") return size;
  if (typeof size === "string") return sizes[size] ?? 1;
  return Math.max(0, Math.floor((size.times * (sizes[size.of] ?? 0) + size.plus) / size.over));
}

export function sizeText(size) {
  if (typeof size !== "object") return String(size);
  if (size.flat) return size.flat.map(sizeText).join(" * ");
  const times = size.times === 1 ? size.of : `${size.times}*${size.of}`;
  const plus = size.plus ? (size.plus > 0 ? `+${size.plus}` : `${size.plus}`) : "";
  return size.over > 1 ? `(${times}${plus})//${size.over}` : times + plus;
}

export const shapeText = (shape) => `[${shape.map(sizeText).join(", ")}]`;

/** One input or output; `inner` is its shape with two axes where the graph has them as one. */
export class Port {
  constructor({ name, dtype, shape, limit = null, minimum = null, chunk = null }, option = null) {
    Object.assign(this, { name, type: dtype, shape, limit, option, chunk });
    this.least = minimum ?? (limit === null ? null : 0);
    this.inner = shape.flatMap((size) => (typeof size === "object" && size.flat ? size.flat : [size]));
    this.batchAxis = this.inner.indexOf(BATCH);
    this.timeAxis = this.inner.map(baseOf).indexOf(TIME); // -1: one value for the whole sequence
    if (this.batchAxis < 0) throw new ModelFileError(`'${name}' has shape ${shapeText(shape)}, expected a batch axis`);
    storage(dtype);
    this.itemShape = this.inner.filter((_, axis) => axis !== this.batchAxis);
    this.itemTimeAxis = this.timeAxis < 0 ? -1 : this.timeAxis - (this.timeAxis > this.batchAxis ? 1 : 0);
  }

  get timed() {
    return this.timeAxis >= 0;
  }

  /** Size of the time axis for a sequence of `steps` steps. */
  steps(steps) {
    return sizeOf(this.inner[this.timeAxis], { [TIME]: steps });
  }

  /** What stands for steps that nobody reads: 0, or the id nearest to it. */
  get blank() {
    return this.least === null ? 0 : Math.min(Math.max(0, this.least), (this.limit ?? Infinity) - 1);
  }

  dims(sizes) {
    return this.inner.map((size) => sizeOf(size, sizes));
  }

  itemDims(sizes) {
    return this.itemShape.map((size) => sizeOf(size, sizes));
  }

  /** What stands for an option that is left out. */
  leftOut(batch) {
    return filled(this.type, this.dims({ [BATCH]: batch }), this.option.default);
  }

  /** Samples one after the other as steps of a chunk each, where the model takes chunks. */
  folded(array, shape) {
    if (this.chunk === null || array.dims.length !== shape.length - 1) return array;
    const axis = shape.indexOf(TIME);
    const samples = array.dims[axis];
    if (samples % this.chunk) throw new InputError(`input '${this.name}' has ${samples} samples, the model takes chunks of ${this.chunk}: hand in whole ones`);
    return { ...array, dims: [...array.dims.slice(0, axis), samples / this.chunk, this.chunk, ...array.dims.slice(axis + 1)] };
  }

  /** The sizes of the named axes of an array; adds to `problems` what does not fit. */
  read(array, shape, label, problems) {
    const { dims } = array;
    if (dims.length !== shape.length || shape.some((size, axis) => typeof size === "number" && size !== dims[axis])) {
      problems.push(`${label} has shape [${dims.join(", ")}], the model expects ${shapeText(shape)}`);
      return {};
    }
    if (this.least !== null) {
      const wrong = array.data.find((id) => id < this.least || (this.limit !== null && id >= this.limit));
      const known = this.limit === null ? `${this.least} and more` : `${this.least} to ${this.limit - 1}`;
      if (wrong !== undefined) problems.push(`${label} holds the id ${wrong}, the model knows ${known}`);
    }
    if (this.option) this.checkRange(array, label, problems);
    return Object.fromEntries(shape.flatMap((size, axis) => (typeof size === "string" ? [[size, dims[axis]]] : [])));
  }

  checkRange(array, label, problems) {
    const { minimum, maximum, above, default: usual } = this.option;
    if ([minimum, maximum, above].every((bound) => bound == null)) return;
    const inside = (x) =>
      (!isFloat(this.type) || Number.isFinite(x)) &&
      (minimum == null || x >= minimum) && (above == null || x > above) && (maximum == null || x <= maximum);
    const wrong = array.data.find((x) => !inside(x));
    if (wrong === undefined) return;
    const words = [["at least", minimum], ["above", above], ["at most", maximum]];
    const text = words.filter(([, bound]) => bound != null).map(([word, bound]) => `${word} ${bound}`).join(" and ");
    problems.push(`${label} holds ${wrong}, expected ${text}, or nothing at all for ${usual}`);
  }
}

/** One recurrent state: graph input `name`, graph output `output`, and the value that a sequence starts from. */
export class State {
  constructor({ name, output, dtype, size, initial = null, shape = null, start = null }) {
    Object.assign(this, { name, output, type: dtype, size, shape: shape ?? [BATCH, size] });
    this.batchAxis = this.shape.indexOf(BATCH);
    const item = this.shape.filter((_, axis) => axis !== this.batchAxis);
    if (this.batchAxis < 0 || product(item) !== size) {
      throw new ModelFileError(`state '${name}' has shape ${shapeText(this.shape)} for ${size} values`);
    }
    this.initial = start ? start : initial === null ? zeros(dtype, item) : fromBytes(fromBase64(initial), dtype, item);
  }

  /** The initial value for several sequences, as the graph wants it. */
  start(batch) {
    const dims = this.shape.map((size) => (size === BATCH ? batch : size));
    const array = zeros(this.type, dims);
    const inner = product(dims.slice(this.batchAxis + 1));
    for (let i = 0; i < array.data.length; i++) {
      array.data[i] = this.initial.data[Math.floor(i / (inner * batch)) * inner + (i % inner)];
    }
    return array;
  }
}

export class Signature {
  constructor(data) {
    try {
      const options = new Map((data.options ?? []).map((option) => [option.name, option]));
      this.inputs = data.inputs.map((port) => new Port(port, options.get(port.name) ?? null));
      this.outputs = data.outputs.map((port) => new Port(port));
      this.lengths = data.lengths?.name ?? null;
      this.states = data.states.map((state) => new State(state));
      this.causal = data.causal;
      this.notCausalBecause = data.not_causal_because;
      this.pick = data.pick ?? null;
      this.axes = new Map((data.axes ?? []).map((axis) => [axis.name, axis]));
      this.stride = data.stride ?? 1;
      this.overlap = data.overlap ?? 0;
      this.mostSteps = data.most_steps ?? Infinity;
    } catch (error) {
      if (error instanceof ModelFileError || error instanceof InputError) throw error;
      throw new ModelFileError(`rnncore.signature in the file cannot be read (${error.message}): export the model again`);
    }
    this.timed = this.inputs.some((port) => port.timed);
    this.timelessOutputs = this.outputs.filter((port) => !port.timed).map((port) => port.name);
  }

  /** Steps that a stream keeps at most for its next run. */
  get mostWaiting() {
    return this.overlap + this.stride - 1;
  }

  /** Of so many steps, those kept included, how many the next run takes: the overlap and whole strides, or none. */
  runOf(steps) {
    return steps > this.mostWaiting ? steps - ((steps - this.overlap) % this.stride) : 0;
  }

  /** Adds to `problems` the axes of whole arrays whose sizes are not what follows from those of other inputs. */
  checkFollowers(arrays, sizes, problems) {
    for (const port of this.inputs.filter(({ name }) => name in arrays)) {
      port.inner.forEach((size, axis) => {
        const own = arrays[port.name].dims[axis];
        if (typeof size !== "object" || !(size.of in sizes) || own === sizeOf(size, sizes)) return;
        problems.push(
          `input '${port.name}' has size ${own} along axis '${sizeText(size)}', expected ${sizeOf(size, sizes)}, ` +
            `as another input has ${sizes[size.of]} along axis '${size.of}'`
        );
      });
    }
  }

  /** Adds to `problems` what is wrong with the sizes of named axes. */
  checkSizes(sizes, problems, where = "") {
    for (const [name, size] of Object.entries(sizes)) {
      const axis = this.axes.get(name);
      if (!axis) continue;
      const { minimum, maximum, multiple } = axis;
      if (size >= minimum && (maximum === null || size <= maximum) && size % multiple === 0) continue;
      const words = [];
      if (multiple > 1) words.push(`a multiple of ${multiple}`);
      if (minimum > 0) words.push(`at least ${minimum}`);
      if (maximum !== null) words.push(`at most ${maximum}`);
      problems.push(`axis '${name}'${where} has size ${size}, expected ${words.join(", ")}`);
    }
  }
}
