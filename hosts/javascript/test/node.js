/** node test/node.js FOLDER: every check in Node; prints one JSON line. */
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import * as rnncore from "rnncore";
import { check } from "./check.js";

ort.env.wasm.numThreads = 1;
const folder = process.argv[2];
const results = await check(ort, rnncore, async (name) => new Uint8Array(await readFile(`${folder}/${name}`)));
process.stdout.write(JSON.stringify(results) + "\n", () => process.exit(0));
