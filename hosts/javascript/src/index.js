/** rnncore in JavaScript: model files of rnncore.export, run by onnxruntime-web or onnxruntime-node. */

export { load, Model } from "./model.js";
export { Stream } from "./stream.js";
export { verify } from "./verify.js";
export { readMetadata } from "./metadata.js";
export { Vocabulary } from "./vocabulary.js";
export { LanguageModel, TextGenerator, Translator } from "./text.js";
export * from "./errors.js";
