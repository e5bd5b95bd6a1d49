/** A program that uses every export; tests/hosts lets TypeScript read it, and nothing runs it. */
import * as ort from "onnxruntime-web";
import {
  InputError,
  LanguageModel,
  Model,
  RnncoreError,
  StateError,
  StreamBusyError,
  TextGenerator,
  Translator,
  Vocabulary,
  load,
  readMetadata,
  verify,
} from "rnncore";
import type { Outputs, Stream, VerifyReport } from "rnncore";

export async function everything(bytes: Uint8Array): Promise<number> {
  const model: Model = await load(ort, bytes, { sessionOptions: { logSeverityLevel: 3 } });
  const outputs: Outputs = await model.run({ ids: [[1, 2], [3, 4]], temperature: 0.5 }, { lengths: [2, 1] });
  const stream: Stream = model.stream();
  await stream.push({ x: new ort.Tensor("float32", new Float32Array(4), [2, 2]) });
  const other: Stream = stream.fork();
  const again: Stream = await model.restore(other.save());
  const together: Outputs[] = await model.pushMany([stream, other], [{ x: [[1]] }, { x: [[2]] }]);
  again.reset();
  again.close();
  const vad = await load(ort, bytes, { states: { state: "stateN" }, axes: { state: "2 batch 128" }, constants: { sr: 16000 }, chunk: 512 });
  await vad.stream().push({ input: new Float32Array(512) });
  const report: VerifyReport = await verify(model);
  const metadata: Record<string, unknown> = await readMetadata(bytes);
  const language = await LanguageModel.load(ort, "model.onnx");
  const scores: { token: string; logProb: number }[] = await language.tokenScores("text");
  const text: string = await language.sample({ prefix: "a", topK: 3, seed: 2n ** 40n });
  const reader = await language.stream();
  reader.draw(0.5, { temperature: 0 });
  const written: string[] = await (await TextGenerator.load(ort, bytes)).generate(["a"], { topP: 0.9, maxTokens: 3 });
  const targets: string[] = await (await Translator.load(ort, bytes)).translate(["a"], { beam: 3 });
  const ids: number[] = new Vocabulary({}).encode(text + written[0] + targets[0]);
  // @ts-expect-error a text is no number of tokens
  await language.sample({ maxTokens: "many" });
  try {
    throw new StreamBusyError("busy");
  } catch (error) {
    if (error instanceof StateError || error instanceof InputError || error instanceof RnncoreError) await model.release();
  }
  return outputs.output.data.length + report.cases.length + Object.keys(metadata).length + together.length + scores.length + ids.length;
}
