/** The second file of a model whose weights are not in the first: found beside it, and checked. */

import { InputError, ModelFileError, TamperedModelError } from "./errors.js";
import { bytesOf } from "./model.js";
import { sha256 } from "./sha256.js";

/** What onnxruntime calls external data: the name that the graph knows, and the bytes. */
export async function weightsOf({ file, size, sha256: told }, source, given) {
  if (typeof file !== "string" || /[/\\]/.test(file)) throw new ModelFileError(`the file of the weights must lie in the same folder: '${file}'`);
  const data = await bytesOf(given ?? besides(source, file));
  if (data.length !== size || (await sha256(data)) !== told) {
    throw new TamperedModelError(`${file}: the weights were changed after export: copy both files again`);
  }
  return { path: file, data };
}

function besides(source, file) {
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw new InputError(`the weights of this model are in a second file, ${file}: hand in its bytes, { weights }, or load by URL or path`);
  }
  const [place, query = ""] = String(source).split(/(?=\?)/);
  const folder = place.slice(0, Math.max(place.lastIndexOf("/"), place.lastIndexOf("\\")) + 1);
  const found = folder + file + (/^https?:/.test(place) ? query : "");
  return source instanceof URL ? new URL(found) : found;
}
