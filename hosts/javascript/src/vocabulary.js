/** Text to token ids and back, for the tokenizers that rnncore writes: characters, words, tokens between blanks, byte pairs. */

import { InputError, ModelFileError, UnknownTokenError } from "./errors.js";

/** Names of the token that ends a text, the first that a tokenizer has counts. */
const ENDS = ["<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "[EOS]", "[SEP]"];
const BYTE_LEVEL = /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

export class Vocabulary {
  #normalize;
  #split;
  #pieces;
  #joined;

  /** @param data the JSON of a `tokenizers` tokenizer. */
  constructor(data) {
    const { model } = data ?? {};
    if (typeof model?.vocab !== "object") throw new ModelFileError("the tokenizer has no model with a vocabulary: hand in the JSON of a tokenizer");
    this.ids = new Map(Object.entries(model.vocab));
    this.special = new Set();
    for (const { id, content, special } of data.added_tokens ?? []) {
      this.ids.set(content, id);
      if (special) this.special.add(id);
    }
    this.tokens = [];
    for (const [token, id] of this.ids) this.tokens[id] = token;
    const end = ENDS.find((token) => this.ids.has(token));
    if (end === undefined) throw new ModelFileError(`the tokenizer has no token '${ENDS[0]}': add it and export again`);
    this.eosId = this.ids.get(end);
    const unknown = this.ids.has("<unk>") ? "<unk>" : model.unk_token === end ? null : model.unk_token;
    this.unkId = this.ids.get(unknown) ?? null;
    this.isCharacterLevel = [...this.ids.keys()].every((token) => token === end || [...token].length === 1);
    this.#normalize = normalizer(data.normalizer);
    this.#split = splitter(data.pre_tokenizer);
    this.#pieces = model.type === "BPE" ? bytePairs(model) : wholeWords(model, this.ids, end, this.isCharacterLevel);
    this.#joined = decoder(data.decoder);
  }

  get size() {
    return this.tokens.length;
  }

  /** Token ids of a text, without the end. */
  encode(text) {
    if (typeof text !== "string") throw new InputError(`text is a ${typeof text}, expected a string`);
    const ids = [];
    for (const word of this.#split(this.#normalize(text))) {
      for (const token of this.#pieces(word, text)) ids.push(this.ids.get(token));
    }
    return ids;
  }

  /** The text of token ids; special tokens are left out. */
  decode(ids) {
    const tokens = [...ids].map(Number).filter((id) => !this.special.has(id)).map((id) => this.tokens[id]);
    if (tokens.includes(undefined)) throw new InputError(`a token id is out of range: expected 0 to ${this.size - 1}`);
    return this.#joined(tokens).join("");
  }
}

function wholeWords(model, ids, end, isCharacterLevel) {
  if (model.type !== "WordLevel") refuse("model", model.type);
  return (word, text) => {
    if (ids.has(word) && word !== end) return [word];
    if (!isCharacterLevel && ids.has(model.unk_token)) return [model.unk_token];
    const code = word.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    throw new UnknownTokenError(
      `unknown character '${word}' (U+${code}) at position ${[...text].indexOf(word)}: the model knows ${ids.size - 1} characters`
    );
  };
}

/** Byte-pair encoding: the pair that was merged first goes first. */
function bytePairs(model) {
  const ranks = new Map(model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
  return (word) => {
    const parts = [...word];
    while (parts.length > 1) {
      let [best, at] = [Infinity, -1];
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) break;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
    return parts;
  };
}

/** GPT-2's printable letters for bytes. */
function byteLetters() {
  const letters = [];
  let extra = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters.push(String.fromCodePoint(printable ? byte : extra++));
  }
  return letters;
}

function normalizer(data) {
  if (!data) return (text) => text;
  // Letter by letter, as the library: a sigma that ends a Greek word is no case of its own there.
  if (data.type === "Lowercase") return (text) => [...text].map((letter) => letter.toLowerCase()).join("");
  if (data.type === "Replace") return (text) => text.replace(pattern(data.pattern), () => data.content);
  if (data.type === "Sequence") {
    const steps = data.normalizers.map(normalizer);
    return (text) => steps.reduce((now, step) => step(now), text);
  }
  return refuse("normalizer", data.type);
}

function splitter(data) {
  if (!data) return (text) => (text ? [text] : []);
  if (data.type === "WhitespaceSplit") return (text) => text.match(/\S+/gu) ?? [];
  if (data.type === "ByteLevel" && !data.add_prefix_space && data.use_regex !== false) {
    const letters = byteLetters();
    const encoder = new TextEncoder();
    return (text) => (text.match(BYTE_LEVEL) ?? []).map((word) => [...encoder.encode(word)].map((byte) => letters[byte]).join(""));
  }
  if (data.type === "Split") {
    const kind = `${data.behavior.toLowerCase()}${data.invert ? ", inverted" : ""}`;
    const found = pattern(data.pattern);
    if (kind === "removed, inverted") return (text) => text.match(found) ?? [];
    if (kind === "isolated" && data.pattern.Regex === "[\\s\\S]") return (text) => [...text];
    return refuse("pre-tokenizer", `Split (${kind})`);
  }
  return refuse("pre-tokenizer", data.type);
}

/** A list of tokens to a list of texts, to be put one after the other. */
function decoder(data) {
  if (!data) return (tokens) => [tokens.join(" ")];
  if (data.type === "Fuse") return (tokens) => [tokens.join("")];
  if (data.type === "Replace") {
    const found = pattern(data.pattern);
    return (tokens) => tokens.map((token) => token.replace(found, () => data.content));
  }
  if (data.type === "WordPiece" && !data.cleanup) {
    return (tokens) =>
      tokens.map((token, i) => (i === 0 ? token : token.startsWith(data.prefix) ? token.slice(data.prefix.length) : ` ${token}`));
  }
  if (data.type === "ByteLevel") {
    const bytes = new Map(byteLetters().map((letter, byte) => [letter, byte]));
    return (tokens) => [new TextDecoder().decode(Uint8Array.from([...tokens.join("")], (letter) => bytes.get(letter)))];
  }
  if (data.type === "Sequence") {
    const steps = data.decoders.map(decoder);
    return (tokens) => steps.reduce((now, step) => step(now), tokens);
  }
  return refuse("decoder", data.type);
}

/** A pattern of the library, whose letters are those of Unicode, as a regular expression of JavaScript. */
function pattern({ Regex: regex, String: text }) {
  if (text !== undefined) return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gu");
  const letters = "\\p{L}\\p{M}\\p{N}\\p{Pc}";
  let inside = false;
  const translated = regex.replace(/\\[\s\S]|[[\]]/gu, (part) => {
    if (part === "[") inside = true;
    if (part === "]") inside = false;
    if (part === "\\w") return inside ? letters : `[${letters}]`;
    if (part === "\\d") return "\\p{Nd}";
    return part;
  });
  return new RegExp(translated, "gu");
}

function refuse(what, name) {
  throw new ModelFileError(`the tokenizer has a ${what} that this module does not know, ${name}: hand in token ids`);
}
