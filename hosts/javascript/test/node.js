/** node test/node.js RUNTIME FOLDER: every check in Node over one of the two packages of onnxruntime; prints one JSON object. */
import { readFile } from "node:fs/promises";
import * as rnncore from "rnncore";
import { check, snapshots } from "./check.js";

const [runtime, folder] = process.argv.slice(2);
const ort = await import(runtime);
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const read = async (name) => new Uint8Array(await readFile(`${folder}/${name}`));
const results = await check(ort, rnncore, read, folder);
const answer = { results, snapshots: await snapshots(ort, rnncore, read) };
process.stdout.write(JSON.stringify(answer) + "\n", () => process.exit(0));
