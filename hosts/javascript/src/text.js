/** Texts in and out: language models that stream, generators and translators of one call. */

import { InputError, ModelFileError, raiseAll } from "./errors.js";
import { load } from "./model.js";
import { Pcg64 } from "./pcg64.js";
import { Vocabulary } from "./vocabulary.js";

const vocabularyOf = (model, name = "tokenizer") => (model.metadata[name] ? new Vocabulary(model.metadata[name]) : null);

const MOST_DRAWS = 2 ** 27; // a gigabyte of them

function seeded(seed) {
  const isWhole = typeof seed === "bigint" || Number.isSafeInteger(seed);
  if (seed != null && !(isWhole && seed >= 0)) throw new InputError(`seed is ${String(seed)}, expected an integer of at least 0, or null for another one each time`);
  return new Pcg64(seed ?? crypto.getRandomValues(new BigUint64Array(1))[0]);
}

function checkSampling({ temperature = 1, topK = null, topP = null, maxTokens = 0 }) {
  const problems = [];
  if (!(temperature >= 0 && temperature < Infinity)) problems.push(`temperature is ${temperature}, expected 0 or more`);
  if (topK !== null && !(Number.isInteger(topK) && topK >= 1)) problems.push(`topK is ${topK}, expected at least 1`);
  if (topP !== null && !(topP > 0 && topP <= 1)) problems.push(`topP is ${topP}, expected above 0 and at most 1`);
  if (!(Number.isInteger(maxTokens) && maxTokens >= 0)) problems.push(`maxTokens is ${maxTokens}, expected 0 or more`);
  raiseAll(problems);
}

/** Raises InputError unless `list` is an array whose items are what `fits` says. */
function checkList(list, label, what, fits) {
  if (!Array.isArray(list)) throw new InputError(`${label} is ${list === null ? "null" : `a ${typeof list}`}, expected a list of ${what}`);
  const wrong = list.findIndex((one) => !fits(one));
  if (wrong >= 0) throw new InputError(`${label}[${wrong}] is ${String(list[wrong]).slice(0, 60)}, expected ${what}`);
}

const isText = (one) => typeof one === "string";
const isIds = (one) => Array.isArray(one) && one.every((id) => typeof id === "bigint" || Number.isSafeInteger(id));

/** Rows of ids as one array, padded with 0; at least one column. */
function padded(rows) {
  const width = Math.max(1, ...rows.map((one) => one.length));
  const data = new BigInt64Array(rows.length * width);
  rows.forEach((one, i) => one.forEach((id, k) => (data[i * width + k] = BigInt(id))));
  return { dims: [rows.length, width], data };
}

const all = (rows, value) => Array(rows).fill(value);

/** A model of token ids that gives log-probabilities of the next token, with its tokenizer. */
export class LanguageModel {
  constructor(model) {
    this.model = model;
    this.vocabulary = vocabularyOf(model);
    const { inputs, outputs } = model.signature;
    if (!this.vocabulary || inputs.length !== 1 || outputs.length !== 1 || inputs[0].type !== "int64" || !model.causal) {
      throw new ModelFileError("the file is no language model: token ids in, log-probabilities out, a tokenizer, streaming");
    }
  }

  static async load(ort, source, options) {
    return new LanguageModel(await load(ort, source, options));
  }

  /** A text at its beginning. */
  async stream() {
    const stream = new TextStream(this, this.model.stream(), null);
    stream.next = await stream.read(this.vocabulary.eosId);
    return stream;
  }

  /** Natural-log probability of each token of a text, given those before it. */
  async tokenScores(text) {
    const stream = await this.stream();
    const scores = [];
    for (const id of this.vocabulary.encode(text)) {
      scores.push({ token: this.vocabulary.tokens[id], logProb: await stream.push(id) });
    }
    return scores;
  }

  /** Write on from `prefix` until the model ends the text; the same seed gives the text that Python gives. */
  async sample({ prefix = "", maxTokens = 400, temperature = 1, topK = null, topP = null, seed = null } = {}) {
    checkSampling({ temperature, topK, topP, maxTokens });
    const stream = await this.stream();
    for (const id of this.vocabulary.encode(prefix)) await stream.push(id);
    const random = seeded(seed);
    const written = [];
    while (written.length < maxTokens) {
      const id = stream.draw(random.random(), { temperature, topK, topP });
      if (id === this.vocabulary.eosId) break;
      written.push(id);
      await stream.push(id);
    }
    return this.vocabulary.decode(written);
  }
}

/** A text that is read token by token; `next` are the log-probabilities of every token as the next one. */
class TextStream {
  constructor(languageModel, stream, next) {
    Object.assign(this, { languageModel, stream, next });
  }

  /** Read one token; answers with the log-probability that it had. */
  async push(id) {
    const logProb = this.next[id];
    if (logProb === undefined) throw new InputError(`token id is ${id}, expected 0 to ${this.next.length - 1}`);
    this.next = await this.read(id);
    return logProb;
  }

  fork() {
    return new TextStream(this.languageModel, this.stream.fork(), this.next);
  }

  /** The token that `uniform`, a random number in [0, 1), draws as the next one. */
  draw(uniform, { temperature = 1, topK = null, topP = null } = {}) {
    const { unkId } = this.languageModel.vocabulary;
    const scores = Array.from(this.next, (value, id) => (id === unkId ? -Infinity : value));
    const order = scores.map((_, id) => id).sort((a, b) => scores[b] - scores[a] || a - b);
    const kept = order.slice(0, temperature === 0 ? 1 : topK ?? order.length);
    const scale = temperature === 0 ? 1 : temperature;
    const normalized = (values) => {
      const total = values.reduce((sum, value) => sum + value, 0);
      return values.map((value) => value / total);
    };
    let masses = normalized(kept.map((id) => Math.exp((scores[id] - scores[order[0]]) / scale)));
    if (topP !== null) {
      let before = 0;
      masses = masses.map((mass) => {
        const needed = before < topP;
        before += mass;
        return needed ? mass : 0;
      });
    }
    const byId = Array(scores.length).fill(0);
    normalized(masses).forEach((mass, i) => (byId[kept[i]] = mass));
    const total = byId.reduce((sum, mass) => sum + mass, 0);
    let sum = 0;
    let last = 0;
    for (let id = 0; id < byId.length; id++) {
      if (byId[id] > 0) last = id;
      sum += byId[id];
      if (sum > uniform * total) return id;
    }
    return last;
  }

  async read(id) {
    const { inputs, outputs } = this.languageModel.model.signature;
    const answer = await this.stream.push({ [inputs[0].name]: [id] });
    return answer[outputs[0].name].data;
  }
}

/** A file of rnncore.export.export_generator: whole texts in one call. */
export class TextGenerator {
  constructor(model) {
    if (!model.metadata.generation) throw new ModelFileError("the file does not generate: write it with export_generator");
    this.model = model;
    this.vocabulary = vocabularyOf(model);
  }

  static async load(ort, source, options) {
    return new TextGenerator(await load(ort, source, options));
  }

  /** What is written after each of several prefixes; the same seed gives the texts that Python gives. */
  async generate(prefixes, options = {}) {
    if (!this.vocabulary) throw new InputError("the file has no tokenizer: use generateIds");
    checkList(prefixes, "prefixes", "texts", isText);
    const written = await this.generateIds(prefixes.map((text) => this.vocabulary.encode(text)), options);
    return written.map(({ ids }) => this.vocabulary.decode(ids));
  }

  /** Token ids written after each prefix of ids, as { ids, logProbs }. */
  async generateIds(prefixes, { maxTokens = 400, temperature = 1, topK = null, topP = null, seed = null } = {}) {
    checkSampling({ temperature, topK, topP, maxTokens });
    checkList(prefixes, "prefixes", "lists of token ids", isIds);
    const rows = prefixes.length;
    if (rows * maxTokens > MOST_DRAWS) throw new InputError(`maxTokens is ${maxTokens} for ${rows} texts, expected at most ${MOST_DRAWS} tokens in one call: hand in fewer texts`);
    const random = seeded(seed);
    const uniforms = { dims: [rows, maxTokens], data: Float64Array.from({ length: rows * maxTokens }, () => random.random()) };
    const inputs = { prefix: padded(prefixes), uniforms, max_tokens: all(rows, maxTokens), temperature: all(rows, temperature) };
    if (topK !== null) inputs.top_k = all(rows, topK);
    if (topP !== null) inputs.top_p = all(rows, topP);
    const answer = await this.model.run(inputs, { lengths: prefixes.map((one) => one.length) });
    const [, steps] = answer.ids.dims;
    return prefixes.map((_, i) => {
      const count = Number(answer.ids_lengths.data[i]);
      const ids = [...answer.ids.data.slice(i * steps, i * steps + count)].map(Number);
      const ended = Number(count < steps && count < maxTokens);
      return { ids, logProbs: answer.log_probs.data.slice(i * steps, i * steps + count + ended) };
    });
  }
}

/** A file of rnncore.export.export_translator: targets of several sources in one call, greedily or by beams. */
export class Translator {
  constructor(model) {
    if (!model.metadata.translation) throw new ModelFileError("the file does not translate: write it with export_translator");
    this.model = model;
    this.source = vocabularyOf(model, "source_tokenizer");
    this.target = vocabularyOf(model, "target_tokenizer");
  }

  static async load(ort, source, options) {
    return new Translator(await load(ort, source, options));
  }

  /** The best translation of each text. */
  async translate(texts, options = {}) {
    if (!this.source || !this.target) throw new InputError("the file has no tokenizers: use translateIds");
    checkList(texts, "texts", "texts", isText);
    const found = await this.translateIds(texts.map((text) => this.source.encode(text)), options);
    return found.map(([best]) => this.target.decode(best.ids));
  }

  /** For each source the targets found, best first, as { ids, logProb, score }. */
  async translateIds(sources, { beam = 1, maxTokens = null, lengthPenalty = 0 } = {}) {
    checkList(sources, "sources", "lists of token ids", isIds);
    if (maxTokens !== null && !(Number.isSafeInteger(maxTokens) && maxTokens >= 0)) {
      throw new InputError(`maxTokens is ${maxTokens}, expected an integer of at least 0`);
    }
    const rows = sources.length;
    const inputs = {
      source: padded(sources),
      max_tokens: sources.map((one) => maxTokens ?? 2 * one.length + 10),
      beam: all(rows, beam),
      length_penalty: all(rows, lengthPenalty),
    };
    const answer = await this.model.run(inputs, { lengths: sources.map((one) => one.length) });
    const { "beam.ids": ids, "beam.ids_lengths": counts, "beam.log_prob": logProbs, "beam.score": scores } = answer;
    const [, width, steps] = ids.dims;
    return sources.map((_, i) => {
      const places = [...Array(width).keys()].map((k) => i * width + k);
      const found = places.map((at) => ({
        ids: [...ids.data.slice(at * steps, at * steps + Number(counts.data[at]))].map(Number),
        logProb: logProbs.data[at],
        score: scores.data[at],
      }));
      return found.filter((one, k) => k === 0 || one.logProb > -Infinity);
    });
  }
}
