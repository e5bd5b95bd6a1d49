/** Between this module and a graph that rnncore did not write: the session of such a graph, with arrays as ours have them. */

import { bitsOf, concat, numbersOf, row, slice, stack, transpose, withAxis } from "./arrays.js";
import { InputError } from "./errors.js";
import { shapeText } from "./signature.js";

/** Version of the way in which readings are told apart. */
export const READINGS = 1;

/** For each axis of the graph the one that it is in [batch, time, ...]. */
function orderOf({ dims, batch, time }) {
  const first = [batch, time].filter((axis) => axis >= 0);
  const places = [...first, ...dims.map((_, axis) => axis).filter((axis) => !first.includes(axis))];
  return dims.map((_, axis) => places.indexOf(axis));
}

function toGraph(port, rows) {
  return transpose(port.batch < 0 ? row(rows, 0, 0) : rows, orderOf(port));
}

function fromGraph(port, value) {
  const order = orderOf(port);
  const items = transpose(value, order.map((_, axis) => order.indexOf(axis)));
  return port.batch < 0 ? withAxis(items, 0) : items;
}

/**
 * Looks like a session of onnxruntime over a file of ours: inputs and outputs [batch, time, ...], states [batch, ...].  A step of an
 * input of chunks is one call of the graph; so is a row, where the graph takes one at a time.
 */
export class AdaptedSession {
  constructor(ort, session, adapter) {
    Object.assign(this, { ort, session, adapter });
    this.inputNames = [...adapter.ports, ...adapter.states].map(({ name }) => name).concat(adapter.contexts.map(({ state }) => state));
    this.outputNames = [...adapter.outputs.map(({ name }) => name), ...adapter.states.map(({ output }) => output), ...adapter.contexts.map(({ state }) => state)];
  }

  async run(feeds) {
    const arrays = Object.fromEntries(Object.entries(feeds).map(([name, { type, dims, data }]) => [name, { type, dims: [...dims], data: numbersOf(type, data) }]));
    const batch = arrays[this.adapter.ports[0].name].dims[0];
    if (!this.adapter.alone || batch === 1) return this.#together(arrays);
    const parts = [];
    for (let i = 0; i < batch; i++) {
      parts.push(await this.#together(Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, slice(array, 0, i, i + 1)]))));
    }
    return Object.fromEntries(this.outputNames.map((name) => [name, concat(parts.map((part) => part[name]), 0)]));
  }

  async release() {
    await this.session.release?.();
  }

  async #together(arrays) {
    const { adapter } = this;
    if (!adapter.chunked) return this.#once(arrays);
    const [first] = adapter.timed;
    const columns = Object.fromEntries(adapter.outputs.map(({ name }) => [name, []]));
    const now = { ...arrays };
    const finals = {};
    for (let t = 0; t < arrays[first].dims[1]; t++) {
      for (const name of adapter.timed) now[name] = row(arrays[name], 1, t);
      for (const { input, state, size } of adapter.contexts) {
        now[input] = concat([now[state], now[input]], 1);
        const samples = now[input].dims[1];
        now[state] = finals[state] = slice(now[input], 1, samples - size, samples);
      }
      const values = await this.#once(now);
      for (const { name } of adapter.outputs) columns[name].push(values[name]);
      for (const { name, output } of adapter.states) now[name] = finals[output] = values[output];
    }
    return { ...Object.fromEntries(Object.entries(columns).map(([name, all]) => [name, stack(all, 1)])), ...finals };
  }

  async #once(arrays) {
    const { ort, adapter } = this;
    const feeds = {};
    const put = (name, array) => (feeds[name] = new ort.Tensor(array.type, bitsOf(array), array.dims));
    for (const [name, array] of Object.entries(adapter.constants)) put(name, array);
    for (const port of adapter.ports) {
      const rows = arrays[port.name];
      // A step of a chunked model has no time axis of its own; the graph may want one of size 1.
      const missing = adapter.chunked && port.time >= 0 && rows.dims.length < port.dims.length + (port.batch < 0 ? 1 : 0);
      put(port.name, toGraph(port, missing ? withAxis(rows, 1) : rows));
    }
    for (const state of adapter.states) put(state.name, toGraph(state, arrays[state.name]));
    const names = [...adapter.outputs.map(({ name }) => name), ...adapter.states.map(({ output }) => output)];
    const values = await this.session.run(feeds, names);
    const read = (name) => ({ type: values[name].type, dims: [...values[name].dims], data: numbersOf(values[name].type, values[name].data) });
    const answers = {};
    for (const port of adapter.outputs) {
      const value = this.#fitting(port, read(port.name));
      const rows = fromGraph(port, value);
      answers[port.name] = adapter.chunked && port.time >= 0 ? row(rows, 1, 0) : rows;
    }
    for (const state of adapter.states) answers[state.output] = fromGraph(state, this.#fitting(state, read(state.output)));
    return answers;
  }

  #fitting(port, value) {
    const fits = value.dims.length === port.dims.length && port.dims.every((size, axis) => typeof size !== "number" || size === value.dims[axis]);
    if (fits) return value;
    throw new InputError(`the graph answered ${port.output ?? port.name} with shape ${shapeText(value.dims)}, its trial run showed ${shapeText(port.dims)}`);
  }
}
