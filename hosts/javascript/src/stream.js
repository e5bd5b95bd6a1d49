/** One stream: its states, and what waits until a stride is whole.  Arrays are never changed once made, so a fork is a copy of references. */

import { concat, row, slice, withAxis } from "./arrays.js";
import { StateError, StreamBusyError, raiseAll } from "./errors.js";
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
    if (this.closed) throw new StateError("the stream is closed");
    if (this.#busy) throw new StreamBusyError("the stream is still busy with the push before: await it first");
    this.#busy = true;
    try {
      return await this.#push(inputs);
    } finally {
      this.#busy = false;
    }
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

  async #push(inputs) {
    const { signature } = this.model;
    const problems = [];
    const sizes = {};
    const items = readInputs(signature, inputs, problems, (port, array) => {
      const own = port.read(array, port.itemShape, `input '${port.name}'`, problems);
      agree(sizes, own, signature, port.name, problems);
    });
    const { [TIME]: given = 0, ...others } = sizes;
    signature.checkSizes(others, problems);
    raiseAll(problems);
    const rest = {};
    const now = {};
    let run = given;
    for (const port of signature.inputs) {
      if (port.option && inputs[port.name] === undefined) continue;
      if (!port.timed) now[port.name] = items[port.name];
      else {
        const waiting = this.rest[port.name];
        const whole = waiting ? concat([waiting, items[port.name]], port.itemTimeAxis) : items[port.name];
        const steps = whole.dims[port.itemTimeAxis];
        run = steps - (steps % signature.stride);
        now[port.name] = slice(whole, port.itemTimeAxis, 0, run);
        rest[port.name] = run === steps ? null : slice(whole, port.itemTimeAxis, run, steps);
      }
    }
    const arrays = Object.fromEntries(
      signature.inputs.filter((port) => port.name in now).map((port) => [port.name, withAxis(now[port.name], port.batchAxis)])
    );
    if (run === 0) {
      const outputs = await this.model.withoutSteps(arrays, this.states, 1, sizes);
      Object.assign(this, { rest, steps: this.steps + given });
      return withoutBatch(signature, outputs);
    }
    const values = await this.model.call(arrays, this.states, null, 1, run, { ...sizes, [BATCH]: 1, [TIME]: run });
    const states = Object.fromEntries(signature.states.map((state) => [state.name, values[state.output]]));
    Object.assign(this, { states, rest, steps: this.steps + given });
    return withoutBatch(signature, values);
  }
}

const withoutBatch = (signature, values) =>
  Object.fromEntries(signature.outputs.map((port) => [port.name, row(values[port.name], port.batchAxis, 0)]));

