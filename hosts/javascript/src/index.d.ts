/** An array: an onnxruntime Tensor is one. */
export interface ArrayLike {
  type?: string;
  dims: readonly number[];
  data: ArrayLike.Data;
}
export namespace ArrayLike {
  type Data =
    | Float32Array | Float64Array | Int8Array | Int16Array | Int32Array | BigInt64Array
    | Uint8Array | Uint16Array | Uint32Array | BigUint64Array;
}
export interface Result {
  type: string;
  dims: number[];
  data: ArrayLike.Data;
}
export type Nested = number | bigint | boolean | ArrayLike.Data | readonly Nested[];
/** Inputs by name; options may be left out, and one number stands for all rows. */
export type Inputs = Record<string, ArrayLike | Nested>;
export type Outputs = Record<string, Result>;
export type Source = string | URL | Uint8Array | ArrayBuffer;

export interface LoadOptions {
  /** What `rnncore inspect --json` wrote. */
  document?: object;
  /** The second file of a model that has its weights in one; found beside the first where that is a URL or a path. */
  weights?: Source;
  /** Handed to onnxruntime. */
  sessionOptions?: object;
  /** For a file that rnncore did not write: the output that each state becomes, by name of the input; {} if it has none. */
  states?: Record<string, string>;
  /** Words for the axes of inputs and outputs: "batch", "time", a size, or any other word. */
  axes?: Record<string, string>;
  /** What states begin at, without the batch axis. */
  initial?: Inputs;
  /** Inputs that never change. */
  constants?: Inputs;
  /** Samples of one call of the graph, where they are fixed. */
  chunk?: number | null;
  /** Samples of the chunk before that the graph wants to see again. */
  context?: number;
}

/** @param ort the module onnxruntime-web or onnxruntime-node */
export function load(ort: object, source: Source, options?: LoadOptions): Promise<Model>;

export class Model {
  readonly inputs: string[];
  readonly outputs: string[];
  readonly causal: boolean;
  readonly fingerprint: string;
  readonly metadata: Record<string, unknown>;
  run(inputs: Inputs, options?: { lengths?: ArrayLike | readonly number[] | null }): Promise<Outputs>;
  stream(): Stream;
  pushMany(streams: readonly Stream[], inputs: readonly Inputs[]): Promise<Outputs[]>;
  restore(blob: Uint8Array | ArrayBuffer): Promise<Stream>;
  release(): Promise<void>;
}

export class Stream {
  readonly steps: number;
  push(inputs: Inputs): Promise<Outputs>;
  fork(): Stream;
  reset(): void;
  save(): Uint8Array;
  close(): void;
}

export interface VerifyCase {
  kind: "whole" | "ragged" | "stream";
  batch: number;
  time: number;
  maxAbs: number;
  error: number;
  passed: boolean;
  note: string;
}
export interface VerifyReport {
  passed: boolean;
  tolerance: number;
  measure: "max" | "rms";
  cases: VerifyCase[];
}
export function verify(model: Model): Promise<VerifyReport>;
export function readMetadata(bytes: Uint8Array): Promise<Record<string, unknown>>;

export class Vocabulary {
  constructor(tokenizer: object);
  readonly size: number;
  readonly tokens: string[];
  readonly eosId: number;
  readonly unkId: number | null;
  encode(text: string): number[];
  decode(ids: Iterable<number | bigint>): string;
}

export interface Sampling {
  temperature?: number;
  topK?: number | null;
  topP?: number | null;
  seed?: number | bigint | null;
  maxTokens?: number;
}

export interface TextStream {
  readonly next: Float32Array | Float64Array;
  push(id: number): Promise<number>;
  fork(): TextStream;
  draw(uniform: number, options?: Pick<Sampling, "temperature" | "topK" | "topP">): number;
}
export class LanguageModel {
  static load(ort: object, source: Source, options?: LoadOptions): Promise<LanguageModel>;
  constructor(model: Model);
  readonly model: Model;
  readonly vocabulary: Vocabulary;
  stream(): Promise<TextStream>;
  tokenScores(text: string): Promise<{ token: string; logProb: number }[]>;
  sample(options?: Sampling & { prefix?: string }): Promise<string>;
}
export class TextGenerator {
  static load(ort: object, source: Source, options?: LoadOptions): Promise<TextGenerator>;
  constructor(model: Model);
  readonly vocabulary: Vocabulary | null;
  generate(prefixes: string[], options?: Sampling): Promise<string[]>;
  generateIds(prefixes: number[][], options?: Sampling): Promise<{ ids: number[]; logProbs: ArrayLike.Data }[]>;
}
export interface Search {
  beam?: number;
  maxTokens?: number | null;
  lengthPenalty?: number;
}
export class Translator {
  static load(ort: object, source: Source, options?: LoadOptions): Promise<Translator>;
  constructor(model: Model);
  translate(texts: string[], options?: Search): Promise<string[]>;
  translateIds(sources: number[][], options?: Search): Promise<{ ids: number[]; logProb: number; score: number }[][]>;
}

export class RnncoreError extends Error {}
export class InputError extends RnncoreError {}
export class UnknownTokenError extends InputError {}
export class ModelFileError extends RnncoreError {}
export class NotOnnxError extends ModelFileError {}
export class ForeignModelError extends ModelFileError {}
export class FormatVersionError extends ModelFileError {}
export class TamperedModelError extends ModelFileError {}
export class NotStreamableError extends RnncoreError {}
export class StateError extends RnncoreError {}
export class StreamBusyError extends StateError {}
export class SnapshotError extends StateError {}
