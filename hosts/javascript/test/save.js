/** node test/save.js FOLDER: pushes the ids 3, 1, 4 to a stream of FOLDER/tagger.onnx and prints its state in base64. */
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import * as rnncore from "rnncore";

ort.env.wasm.numThreads = 1;
const model = await rnncore.load(ort, new Uint8Array(await readFile(`${process.argv[2]}/tagger.onnx`)));
const stream = model.stream();
await stream.push({ [model.inputs[0]]: [3, 1, 4] });
process.stdout.write(Buffer.from(await stream.save()).toString("base64") + "\n", () => process.exit(0));
