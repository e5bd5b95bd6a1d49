/** What every host must answer: the golden cases of all files, and the texts, ids and states that Python gave. */

const same = (got, expected) => JSON.stringify(got) === JSON.stringify(expected);
const close = (got, expected) => got.length === expected.length && expected.every((x, i) => Math.abs(x - got[i]) <= 1e-4);

/** @param read name of a file -> its bytes. @param place their folder. @returns [{ name, passed, note }] */
export async function check(ort, rnncore, read, place) {
  const results = [];
  const test = async (name, run) => {
    try {
      const note = await run();
      results.push({ name, passed: note === undefined, note: note === undefined ? "" : String(note) });
    } catch (error) {
      results.push({ name, passed: false, note: `${error.name}: ${error.message}` });
    }
  };
  const json = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));
  const expected = await json("expected.json");
  const beside = async (name) => (name === "fused.onnx" ? { weights: await read(expected.weights) } : {});
  const opened = async (name) => rnncore.load(ort, await read(name), await beside(name));
  const refused = async (type, run) => {
    try {
      await run();
    } catch (error) {
      return error instanceof rnncore[type] ? undefined : `${error.name} in place of ${type}: ${error.message}`;
    }
    return `nothing was refused, expected ${type}`;
  };

  for (const [name, kinds] of Object.entries(expected.files)) {
    await test(`golden cases of ${name}`, async () => {
      const report = await rnncore.verify(await opened(name));
      if (!same(report.cases.map((one) => one.kind), kinds)) return `cases ${report.cases.map((one) => one.kind)}`;
      if (!report.passed) return report.cases.map(({ kind, error, note }) => `${kind} ${error} ${note}`).join("; ");
    });
    await test(`the document of ${name} says the same`, async () => {
      const document = await json(`${name}.json`);
      const { document_version, ...rest } = document;
      const sorted = (one) => Object.fromEntries(Object.entries(one).sort());
      if (!same(sorted(await rnncore.readMetadata(await read(name))), sorted(rest))) return "it does not";
      const model = await rnncore.load(ort, await read(name), { document, ...(await beside(name)) });
      if (!(await rnncore.verify(model)).passed) return "golden cases fail";
    });
  }
  await test("one byte changed is refused", async () => {
    const bytes = (await read("tagger.onnx")).slice();
    bytes[bytes.length >> 1] ^= 1;
    return refused("ModelFileError", () => rnncore.load(ort, bytes));
  });
  await test("a file cut short is refused", async () => {
    const bytes = await read("tagger.onnx");
    return refused("NotOnnxError", () => rnncore.load(ort, bytes.subarray(0, bytes.length >> 1)));
  });
  await test("weights in a second file: beside the first, handed in, not without, not changed", async () => {
    if (!(await rnncore.verify(await rnncore.load(ort, `${place}/fused.onnx`))).passed) return "golden cases fail";
    const note = await refused("InputError", async () => rnncore.load(ort, await read("fused.onnx")));
    if (note) return note;
    const weights = (await read(expected.weights)).slice(1);
    const shorter = await refused("TamperedModelError", async () => rnncore.load(ort, await read("fused.onnx"), { weights }));
    return shorter ?? refused("TamperedModelError", () => rnncore.load(ort, `${place}/changed/fused.onnx`));
  });
  await test("pushMany gives what push gives, and moves all streams or none", async () => {
    const model = await opened("tagger.onnx");
    const [input] = model.inputs;
    const chunks = [[1, 2], [3], [4, 5], [], [6]];
    const [streams, alone] = [0, 1].map(() => chunks.map(() => model.stream()));
    for (let round = 0; round < 2; round++) {
      const together = await model.pushMany(streams, chunks.map((ids) => ({ [input]: BigInt64Array.from(ids, BigInt) })));
      for (const [i, ids] of chunks.entries()) {
        const own = await alone[i].push({ [input]: BigInt64Array.from(ids, BigInt) });
        for (const name of model.outputs) {
          if (!same(together[i][name].dims, own[name].dims) || !close([...together[i][name].data], [...own[name].data])) return `stream ${i} differs`;
        }
      }
    }
    const before = streams.map((stream) => stream.save().join());
    const wrong = await refused("InputError", () => model.pushMany(streams, chunks.map((_, i) => ({ [input]: [i === 4 ? 99999 : 1] }))));
    if (wrong) return wrong;
    const twice = await refused("InputError", () => model.pushMany([streams[0], streams[0]], [{ [input]: [1] }, { [input]: [1] }]));
    if (twice) return twice;
    if (!same(before, streams.map((stream) => stream.save().join()))) return "a refused push moved a stream";
    if (streams.some((stream, i) => stream.steps !== 2 * chunks[i].length)) return "other numbers of steps";
  });
  await test("streams of a convolution without padding keep apart what waits in each, and give the whole", async () => {
    const model = await opened("strided.onnx");
    const frames = (row, from, to) => Array.from({ length: to - from }, (_, t) => Array.from({ length: 5 }, (_, i) => Math.sin(row + 3 * (from + t) + i)));
    const cuts = [[0, 1, 2, 9, 13], [0, 4, 4, 5, 13], [0, 13, 13, 13, 13]];
    const streams = cuts.map(() => model.stream());
    const found = cuts.map(() => []);
    for (let i = 0; i < 4; i++) {
      const together = await model.pushMany(streams, cuts.map((own, row) => ({ x: { dims: [own[i + 1] - own[i], 5], data: Float32Array.from(frames(row, own[i], own[i + 1]).flat()) } })));
      for (const [row, { output }] of together.entries()) {
        const steps = Math.max(0, Math.floor((cuts[row][i + 1] - 2) / 2)) - Math.max(0, Math.floor((cuts[row][i] - 2) / 2));
        if (!same(output.dims, [steps, 3])) return `row ${row}, chunk ${i}: an answer of [${output.dims}], expected ${steps} steps`;
        found[row].push(...output.data);
      }
    }
    for (const [row, own] of found.entries()) {
      const { output } = await model.run({ x: [frames(row, 0, 13)] });
      if (!close(own, [...output.data])) return `row ${row} differs from the whole`;
    }
    const { output } = await model.run({ x: [frames(0, 0, 13), frames(1, 0, 13)] }, { lengths: [13, 7] });
    if (!close([...output.data], [...found[0], ...found[1].slice(0, 6), ...Array(9).fill(0)])) return "a padded row is not as alone";
  });
  await test("where places end, a stream ends, and stays where it was", async () => {
    const stream = (await opened("places.onnx")).stream();
    const steps = (count) => ({ x: { dims: [count, 5], data: new Float32Array(5 * count) } });
    await stream.push(steps(15));
    const note = await refused("InputError", () => stream.push(steps(2)));
    if (note) return note;
    const { output } = await stream.push(steps(1));
    if (stream.steps !== 16 || !same(output.dims, [1, 3])) return `${stream.steps} steps, an answer of [${output.dims}]`;
    return refused("InputError", () => stream.push(steps(1)));
  });
  await test("16-bit floats: rounded to the nearest, the even one of two; streams as the whole", async () => {
    const model = await opened("layer_norm.onnx");
    const [input] = model.inputs;
    const [output] = model.outputs;
    const x = Array.from({ length: 3 }, (_, t) => Array.from({ length: 5 }, (_, i) => Math.sin(3 * t + i)));
    const whole = (await model.run({ [input]: [x] }))[output];
    if (whole.type !== "float16" || !(whole.data instanceof Float32Array)) return `${whole.type}, ${whole.data.constructor.name}`;
    let stream = model.stream();
    const first = (await stream.push({ [input]: x.slice(0, 2) }))[output];
    stream = await model.restore(stream.save());
    const last = (await stream.push({ [input]: new ort.Tensor("float32", Float32Array.from(x[2]), [1, 5]) }))[output];
    const worst = Math.max(...[...first.data, ...last.data].map((value, i) => Math.abs(value - whole.data[i])));
    if (!(worst <= 2 ** -10)) return `chunks differ by ${worst}`;
  });
  await test("a fork goes its own way, and a saved stream goes on here", async () => {
    const model = await opened("tagger.onnx");
    const [input] = model.inputs;
    const [output] = model.outputs;
    const stream = model.stream();
    await stream.push({ [input]: [1, 2, 3] });
    const other = stream.fork();
    const restored = await model.restore(stream.save());
    await other.push({ [input]: [4] });
    const answers = [];
    for (const one of [stream, restored]) answers.push([...(await one.push({ [input]: [5] }))[output].data]);
    if (!same(...answers)) return "they differ";
    const whole = (await model.run({ [input]: [[1, 2, 3, 5]] }))[output];
    if (!close(answers[0], [...whole.data.slice(-answers[0].length)])) return "chunks differ from the whole";
  });
  for (const [name, { snapshot, first, then, answer }] of Object.entries(expected.saved)) {
    await test(`a stream of ${name} that Python saved goes on here, and not in another model`, async () => {
      const model = await opened(name);
      const [input] = model.inputs;
      const bytes = Uint8Array.from(atob(snapshot), (letter) => letter.charCodeAt(0));
      const near = (got) => got.length === answer.flat().length && got.every((value, i) => Math.abs(value - answer.flat()[i]) <= (name === "layer_norm.onnx" ? 4e-3 : 1e-4));
      const stream = await model.restore(bytes);
      if (stream.steps !== first.length) return `${stream.steps} steps`;
      const [output] = Object.values(await stream.push({ [input]: then }));
      if (!near([...output.data])) return `${output.data} in place of ${answer}`;
      const own = model.stream();
      await own.push({ [input]: first });
      const [again] = Object.values(await (await model.restore(own.save())).push({ [input]: then }));
      if (!near([...again.data])) return "saved and restored here it goes on otherwise";
      const other = await opened(name === "tagger.onnx" ? "layer_norm.onnx" : "tagger.onnx");
      for (const wrong of [bytes.slice(0, -1), bytes.slice(0, 20), new Uint8Array(0), bytes.map((byte, i) => (i === 40 ? byte ^ 1 : byte)), "text", null, 5]) {
        const note = await refused("SnapshotError", () => model.restore(wrong));
        if (note) return `${wrong}`.slice(0, 20) + note;
      }
      return refused("SnapshotError", () => other.restore(bytes));
    });
  }
  await test("a model that does not stream says why", async () =>
    refused("NotStreamableError", async () => (await opened("both_ways.onnx")).stream()));
  await test("sizes that follow another input's, and ids that begin at 1", async () => {
    const model = await opened("both_ways.onnx");
    const array = (dims, fill, Type) => ({ dims, data: new Type(dims.reduce((a, b) => a * b)).fill(fill) });
    const inputs = (id, steps) => ({ words: array([2, 3], id, BigInt64Array), frames: array([2, steps, 3], 1, Float32Array) });
    const whole = (await model.run(inputs(1n, 6))).output;
    const none = (await model.run({ words: array([1, 0], 1n, BigInt64Array), frames: array([1, 0, 3], 1, Float32Array) })).output;
    if (!same([whole.dims, none.dims], [[2, 3, 14], [1, 0, 14]])) return `answers of ${whole.dims} and ${none.dims}`;
    for (const [id, steps] of [[0n, 6], [14n, 6], [-1n, 6], [1n, 5], [1n, 3], [1n, 12]]) {
      const note = await refused("InputError", () => model.run(inputs(id, steps)));
      if (note) return `ids ${id}, ${steps} frames: ${note}`;
    }
  });
  await test("wrong input is refused by name", async () => {
    const model = await opened("tagger.onnx");
    const [input] = model.inputs;
    const cycle = [];
    cycle.push(cycle);
    const sized = [[-1, -3], [1.5, 2], ["1", "3"], [NaN, 3]].map((dims) => ({ [input]: { dims, data: new BigInt64Array(3) } }));
    for (const wrong of [...sized, { [input]: cycle }, null, { [input]: "abc" }, { [input]: [[1], [1, 2]] }, {}, { [input]: [[99999]] }, { [input]: [[0.5]] }, { [input]: [1] }, { nothing: [[1]] }, [[1]]]) {
      const note = await refused("InputError", () => model.run(wrong));
      if (note) return `${JSON.stringify(wrong === null ? wrong : Object.keys(wrong))}: ${note}`;
    }
    const stream = model.stream();
    const closed = model.stream();
    closed.close();
    const shut = await refused("StateError", () => closed.push({ [input]: [1] }));
    if (shut) return shut;
    const [first] = [stream.push({ [input]: [1] })];
    const note = await refused("StreamBusyError", () => stream.push({ [input]: [1] }));
    await first;
    return note;
  });
  for (const { file, name, options, input, output, shape, x, cuts, answer } of expected.foreign) {
    await test(`a file of others, ${name}: Python's answers, whole and in chunks, saved between them`, async () => {
      const model = await rnncore.load(ort, await read(file), options);
      const tolerance = model.signature.inputs[0].type === "float16" ? 4e-3 : 1e-4;
      const near = (got, from, to) => got.length === to - from && got.every((value, i) => Math.abs(value - answer[from + i]) <= tolerance);
      const whole = (await model.run({ [input]: { dims: shape, data: Float32Array.from(x) } }))[output];
      if (!near([...whole.data], 0, answer.length)) return `${whole.dims}: ${whole.data.slice(0, 5)} in place of ${answer.slice(0, 5)}`;
      const step = x.length / shape[0] / shape[1];
      const own = answer.length / shape[0] / shape[1];
      const [streams, forks] = [[0, 1].map(() => model.stream()), []];
      for (let i = 0; i + 1 < cuts.length; i++) {
        const chunk = (row) => ({ dims: [cuts[i + 1] - cuts[i], ...shape.slice(2)], data: Float32Array.from(x.slice((row * shape[1] + cuts[i]) * step, (row * shape[1] + cuts[i + 1]) * step)) });
        const together = await model.pushMany(streams, streams.map((_, row) => ({ [input]: chunk(row) })));
        for (const [row, got] of together.entries()) {
          const at = row * shape[1];
          if (!near([...got[output].data], (at + cuts[i]) * own, (at + cuts[i + 1]) * own)) return `row ${row}, chunk ${i} differs`;
        }
        for (const [row, stream] of streams.entries()) {
          forks.push(stream.fork());
          streams[row] = await model.restore(stream.save());
        }
      }
      if (options.chunk) { // samples one after the other are chunks too
        const flat = Float32Array.from(x.slice(0, x.length / 2));
        if (!near([...(await model.stream().push({ [input]: flat }))[output].data], 0, answer.length / 2)) return "flat samples differ";
        const note = await refused("InputError", () => model.stream().push({ [input]: flat.slice(1) }));
        if (note) return note;
      }
      if (!same(forks.slice(0, 2).map((one) => one.steps), [1, 1])) return "a fork moved";
      const [first] = Object.keys(options.states);
      for (const wrong of [{ states: {} , ...(options.chunk ? { chunk: options.chunk } : {}) }, { states: { [first]: "nothing" } }, { states: { nothing: first } }, { ...options, axes: { [first]: "batch" } }, { ...options, initial: { [first]: [[[[1]]]] } }, { ...options, chunk: 1.5 }]) {
        const note = await refused("RnncoreError", async () => (await rnncore.load(ort, await read(file), wrong)).stream());
        if (note) return `${JSON.stringify(wrong)}: ${note}`;
      }
      const reading = { ...options, initial: { [first]: [...(await model.stream()).states[first].data].map((value) => value + 1) } };
      if (name === "no batch, begins elsewhere") {
        const other = await rnncore.load(ort, await read(file), reading);
        const note = await refused("SnapshotError", () => other.restore(streams[0].save()));
        if (note) return note;
      }
      return refused("ForeignModelError", async () => rnncore.load(ort, await read(file)));
    });
  }
  await test("states of a file of ours, and words without states, are refused", async () => {
    const note = await refused("InputError", async () => rnncore.load(ort, await read("tagger.onnx"), { states: {} }));
    if (note) return note;
    const chunk = await refused("InputError", async () => rnncore.load(ort, await read("tagger.onnx"), { chunk: 5 }));
    return chunk ?? refused("InputError", async () => rnncore.load(ort, await read("tagger.onnx"), { state: {} }));
  });
  for (const { name, tokenizer, texts } of expected.vocabularies) {
    await test(`${name}: the ids and texts of the tokenizers library`, async () => {
      const vocabulary = new rnncore.Vocabulary(tokenizer);
      for (const { text, ids, decoded } of texts) {
        if (!same(vocabulary.encode(text), ids)) return `${JSON.stringify(text)} is ${vocabulary.encode(text)}, expected ${ids}`;
        if (vocabulary.decode(ids) !== decoded) return `${JSON.stringify(vocabulary.decode(ids))}, expected ${JSON.stringify(decoded)}`;
      }
    });
  }
  await test("a tokenizer of another kind is refused by name", () =>
    refused("ModelFileError", () => new rnncore.Vocabulary({ ...expected.vocabularies[0].tokenizer, pre_tokenizer: { type: "Metaspace" } })));
  await test("a language model scores and samples as in Python", async () => {
    const model = await rnncore.LanguageModel.load(ort, await read("language_model.onnx"));
    const { text, log_probs, samples } = expected.language_model;
    const scores = await model.tokenScores(text);
    if (!close(scores.map((one) => one.logProb), log_probs)) return `scores ${scores.map((one) => one.logProb)}`;
    for (const { options, written } of samples) {
      const got = await model.sample(options);
      if (got !== written) return `${JSON.stringify(got)} in place of ${JSON.stringify(written)}`;
    }
    return refused("UnknownTokenError", () => model.tokenScores("Ω"));
  });
  await test("a generator writes as in Python, with options and without", async () => {
    const generator = await rnncore.TextGenerator.load(ort, await read("generator.onnx"));
    for (const { prefixes, options, written } of expected.generator) {
      const got = await generator.generate(prefixes, options);
      if (!same(got, written)) return `${JSON.stringify(got)} in place of ${JSON.stringify(written)}`;
    }
    const wrongs = [[["a"], { topP: 2 }], [["a"], { seed: -1 }], [["a"], { seed: 1.5 }], [["a"], { seed: "x" }], [["a"], { maxTokens: 1e12 }], ["abc"], [null], [[5]]];
    for (const wrong of wrongs) {
      const note = await refused("InputError", () => generator.generate(...wrong));
      if (note) return `${JSON.stringify(wrong)}: ${note}`;
    }
    return refused("InputError", () => generator.generateIds([["a"]]));
  });
  await test("a translator finds what Python finds", async () => {
    const translator = await rnncore.Translator.load(ort, await read("translator.onnx"));
    for (const { sources, options, found } of expected.translator) {
      const got = await translator.translateIds(sources, options);
      if (!same(got.map((all) => all.map((one) => one.ids)), found.map((all) => all.map(([ids]) => ids)))) {
        return `${JSON.stringify(got.map((all) => all.map((one) => one.ids)))} in place of ${JSON.stringify(found)}`;
      }
      if (!close(got.flat().map((one) => one.score), found.flat().map(([, score]) => score))) return "other scores";
    }
    for (const wrong of [{ beam: 1e9 }, { beam: 0 }, { maxTokens: -1 }, { maxTokens: 0.5 }, { lengthPenalty: -1 }]) {
      const note = await refused("InputError", () => translator.translateIds([[1]], wrong));
      if (note) return `${JSON.stringify(wrong)}: ${note}`;
    }
  });
  return results;
}

/** The states, in base64, of streams that have read the first chunks of expected.saved, by file. */
export async function snapshots(ort, rnncore, read) {
  const { saved } = JSON.parse(new TextDecoder().decode(await read("expected.json")));
  const found = {};
  for (const [name, { first }] of Object.entries(saved)) {
    const model = await rnncore.load(ort, await read(name));
    const stream = model.stream();
    await stream.push({ [model.inputs[0]]: first });
    found[name] = btoa(String.fromCharCode(...stream.save()));
  }
  return found;
}
