/** One stream: its states, and what waits for the next run: less than a stride, and what runs share.  Arrays are never changed once made, so a fork is a copy of references. */

import { concat, readArray, row, slice, withAxis } from "./arrays.js";
import { InputError, StateError, StreamBusyError, raiseAll } from "./errors.js";
import { agree, readInputs } from "./model.js";
import { BATCH, TIME } from "./signature.js";
import { saved } from "./snapshot.js";

export class Stream {
  #busy = false;

  constructor(model) {
    this.model = model;
    this.reset();
  }

  /** Begin anew, at the initial state. */
  reset() {
    if (this.#busy) throw new StreamBusyError("the stream is still busy with a push: await it first");
    this.states = this.model.starts(1);
    this.rest = Object.fromEntries(
      this.model.signature.inputs.filter((port) => port.timed).map((port) => [port.name, null])
    );
    this.steps = 0;
    this.closed = false;
  }

  /**
   * Read on: for each input, by name, an array [time, ...] of any number of steps.  Answers by name, [time, ...].
   * After an error the stream is where it was.
   */
  async push(inputs) {
    const [outputs] = await pushTogether(this.model, [this], [inputs]);
    return outputs;
  }

  /** Another stream at the same place, which goes its own way. */
  fork() {
    if (this.closed) throw new StateError("the stream is closed");
    if (this.#busy) throw new StreamBusyError("the stream is still busy with a push: await it first");
    const other = new Stream(this.model);
    return Object.assign(other, { states: { ...this.states }, rest: { ...this.rest }, steps: this.steps });
  }

  /** The state as bytes, tied to this model; `model.restore` goes on from them, here or in Python. */
  save() {
    if (this.closed) throw new StateError("the stream is closed");
    return saved(this);
  }

  close() {
    this.closed = true;
  }

  /** What a push would run, checked; nothing moves yet. */
  prepared(inputs) {
    const { signature } = this.model;
    const problems = [];
    const sizes = {};
    const items = readInputs(signature, inputs, problems, (port, given) => {
      const array = port.folded(given, port.itemShape);
      const own = port.read(array, port.itemShape, `input '${port.name}'`, problems);
      agree(sizes, own, signature, port.name, problems);
      return array;
    });
    for (const port of signature.inputs.filter((one) => one.option && inputs[one.name] !== undefined)) {
      items[port.name] = readArray(inputs[port.name], port.type, `input '${port.name}'`);
      port.read(items[port.name], port.itemShape, `input '${port.name}'`, problems);
    }
    const { [TIME]: given = 0, ...others } = sizes;
    signature.checkSizes(others, problems);
    if (given > signature.mostSteps - this.steps) {
      problems.push(
        `the stream has read ${this.steps} steps, ${given} more are beyond the ${signature.mostSteps} that this model takes in all ` +
          "(its positions end there): begin a new stream"
      );
    }
    raiseAll(problems);
    const rest = {};
    const arrays = {};
    let run = given;
    for (const port of signature.inputs.filter((one) => one.name in items)) {
      let whole = items[port.name];
      if (port.timed) {
        const waiting = this.rest[port.name];
        if (waiting) whole = concat([waiting, whole], port.itemTimeAxis);
        const steps = whole.dims[port.itemTimeAxis];
        run = signature.runOf(steps);
        const from = Math.max(0, run - signature.overlap);
        rest[port.name] = from === steps ? null : slice(whole, port.itemTimeAxis, from, steps);
        whole = slice(whole, port.itemTimeAxis, 0, run);
      }
      arrays[port.name] = withAxis(whole, port.batchAxis);
    }
    return { arrays, rest, sizes, run, given };
  }

  /** Take turns: pushes of one stream come one after the other. */
  enter() {
    if (this.closed) throw new StateError("the stream is closed");
    if (this.#busy) throw new StreamBusyError("the stream is still busy with the push before: await it first");
    this.#busy = true;
  }

  leave() {
    this.#busy = false;
  }
}

/** Several streams of one model, each with its inputs; all move, or none does. */
export async function pushTogether(model, streams, inputs) {
  const ofModel = Array.isArray(streams) && streams.every((one) => one instanceof Stream && one.model === model);
  if (!ofModel || !Array.isArray(inputs) || inputs.length !== streams.length) {
    throw new InputError("pushMany takes streams of this model, and as many inputs by name, one for each");
  }
  if (new Set(streams).size !== streams.length) throw new InputError("a stream is listed twice: join its chunks");
  const entered = [];
  try {
    for (const stream of streams) {
      stream.enter();
      entered.push(stream);
    }
    const jobs = streams.map((stream, i) => ({ stream, ...stream.prepared(inputs[i]) }));
    const groups = new Map();
    for (const job of jobs) {
      const key = JSON.stringify(Object.entries(job.arrays).map(([name, { dims }]) => [name, dims]));
      groups.set(key, [...(groups.get(key) ?? []), job]);
    }
    for (const group of groups.values()) await runGroup(model, group);
    for (const { stream, states, rest, given } of jobs) Object.assign(stream, { states, rest, steps: stream.steps + given });
    return jobs.map((job) => job.outputs);
  } finally {
    for (const stream of entered) stream.leave();
  }
}

/** One call of the graph for jobs of equal sizes; writes `states` and `outputs` of each. */
async function runGroup(model, group) {
  const { signature } = model;
  const batch = group.length;
  const [{ run, sizes: own, arrays: first }] = group;
  const joined = (parts, axis) => (parts.length === 1 ? parts[0] : concat(parts, axis));
  const ports = signature.inputs.filter((port) => port.name in first);
  const arrays = Object.fromEntries(ports.map((port) => [port.name, joined(group.map((job) => job.arrays[port.name]), port.batchAxis)]));
  const states = Object.fromEntries(
    signature.states.map((state) => [state.name, joined(group.map((job) => job.stream.states[state.name]), state.batchAxis)])
  );
  const sizes = { ...own, [BATCH]: batch, [TIME]: run };
  const blank = run === 0;
  const values = blank ? await model.withoutSteps(arrays, states, batch, sizes) : await model.call(arrays, states, null, batch, run, sizes);
  const part = (array, axis, i) => (batch === 1 ? array : slice(array, axis, i, i + 1));
  group.forEach((job, i) => {
    job.states = blank
      ? job.stream.states
      : Object.fromEntries(signature.states.map((state) => [state.name, part(values[state.output], state.batchAxis, i)]));
    job.outputs = Object.fromEntries(signature.outputs.map((port) => [port.name, row(values[port.name], port.batchAxis, i)]));
  });
}
