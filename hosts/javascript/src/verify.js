/** Put the golden questions of a file to it once more, and compare with what PyTorch answered.  See docs/format.md. */

import { concat, fromBase64, fromBytes, fromHalf, isBig, isFloat, product, row, slice, toHalf, withAxis, zeros } from "./arrays.js";
import { InputError, ModelFileError, RnncoreError } from "./errors.js";
import { Pcg64 } from "./pcg64.js";

/** { passed, tolerance, measure, cases: [{ kind, batch, time, maxAbs, error, passed, note }] } */
export async function verify(model) {
  if (!model?.metadata) throw new InputError("model is no loaded model: hand in what load gives");
  const { golden } = model.metadata;
  if (!golden?.cases?.length) throw new ModelFileError("the file holds no golden cases: export it with verify=True");
  const cases = [];
  for (const data of golden.cases) {
    const result = { kind: data.kind, batch: data.batch, time: data.time, maxAbs: Infinity, error: Infinity, note: "" };
    try {
      const inputs = {};
      for (const [name, packed] of Object.entries(data.inputs)) inputs[name] = await unpacked(packed);
      const outputs = await answer(model, data, inputs);
      [result.maxAbs, result.error] = [0, 0];
      for (const [name, kept] of Object.entries(data.outputs)) {
        const [maxAbs, error] = distance(outputs[name], kept, await unpacked(kept), golden.measure);
        result.maxAbs = Math.max(result.maxAbs, maxAbs);
        result.error = Math.max(result.error, error);
      }
    } catch (error) {
      if (!(error instanceof RnncoreError)) throw error;
      result.note = error.message;
    }
    result.passed = result.error <= golden.tolerance;
    cases.push(result);
  }
  return { passed: cases.every((one) => one.passed), tolerance: golden.tolerance, measure: golden.measure, cases };
}

async function answer(model, { kind, lengths, chunks }, inputs) {
  if (kind !== "stream") return model.run(inputs, { lengths });
  const { signature } = model;
  const stream = model.stream();
  const parts = [];
  let start = 0;
  for (const size of chunks) {
    const item = Object.fromEntries(
      signature.inputs.map((port) => {
        const array = inputs[port.name];
        return [port.name, row(port.timed ? slice(array, port.timeAxis, start, start + size) : array, port.batchAxis, 0)];
      })
    );
    start += size;
    parts.push(await stream.push(item));
  }
  const whole = (port) => {
    const all = parts.map((part) => withAxis(part[port.name], port.batchAxis));
    return port.timed ? concat(all, port.timeAxis) : all.at(-1);
  };
  return Object.fromEntries(signature.outputs.map((port) => [port.name, whole(port)]));
}

/** Largest absolute error, and the error by the file's measure. */
function distance(got, { of: dims, every }, { type, data: expected }, measure) {
  if (!got || got.dims.join() !== dims.join()) return [Infinity, Infinity];
  let [worst, largest, wrong, size, count] = [0, 0, 0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const [mine, theirs] = [Number(got.data[i * every]), Number(expected[i])];
    if (!Number.isFinite(theirs)) {
      if (!Object.is(mine, theirs)) return [Infinity, Infinity];
      continue;
    }
    if (!Number.isFinite(mine)) return [Infinity, Infinity];
    const off = Math.abs(mine - theirs);
    worst = Math.max(worst, off);
    largest = Math.max(largest, Math.abs(theirs));
    wrong += isFloat(type) ? off ** 2 : Number(off !== 0);
    size += isFloat(type) ? theirs ** 2 : 1;
    count += 1;
  }
  if (measure === "max") return [worst, worst / Math.max(1, largest)];
  return [worst, Math.sqrt(size ? wrong / size : wrong / Math.max(count, 1))];
}

/** An array of a golden case: stored, or drawn again from its seed. */
async function unpacked({ dtype, shape, data, seed, low, high }) {
  if (seed !== undefined) {
    const random = new Pcg64(seed);
    const array = zeros(dtype, shape);
    const span = BigInt(Math.trunc(high)) - BigInt(Math.trunc(low)) + 1n;
    for (let i = 0; i < product(shape); i++) {
      const word = random.word();
      if (dtype === "bool") array.data[i] = Number(word >> 63n);
      else if (isFloat(dtype)) {
        const drawn = low + (high - low) * (Number(word >> 11n) / 2 ** 53);
        array.data[i] = dtype === "float16" ? fromHalf(toHalf(drawn)) : drawn;
      }
      else {
        const drawn = BigInt(Math.trunc(low)) + ((word >> 11n) % span);
        array.data[i] = isBig(dtype) ? drawn : Number(drawn);
      }
    }
    return array;
  }
  const inflated = new Blob([fromBase64(data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return fromBytes(new Uint8Array(await new Response(inflated).arrayBuffer()), dtype, shape);
}
