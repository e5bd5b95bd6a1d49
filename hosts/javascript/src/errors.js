/** Every error that this module raises on purpose, in one tree; names and meanings are those of rnncore.runtime. */

export class RnncoreError extends Error {
  constructor(message, options) {
    super(message, options);
    this.name = this.constructor.name;
  }
}

/** A value handed in is wrong: rank, width, dtype, lengths, range. */
export class InputError extends RnncoreError {}
/** A character or token outside the model's vocabulary. */
export class UnknownTokenError extends InputError {}
/** The file cannot be used. */
export class ModelFileError extends RnncoreError {}
/** No ONNX model, or a truncated one. */
export class NotOnnxError extends ModelFileError {}
/** An ONNX model that rnncore did not write. */
export class ForeignModelError extends ModelFileError {}
/** Written by a newer rnncore. */
export class FormatVersionError extends ModelFileError {}
/** Changed after export. */
export class TamperedModelError extends ModelFileError {}
/** A stream was asked of a model that does not stream. */
export class NotStreamableError extends RnncoreError {}
/** A stream that is closed. */
export class StateError extends RnncoreError {}
/** A stream that is still busy with the push before. */
export class StreamBusyError extends StateError {}
/** Bytes that are no saved state of this model. */
export class SnapshotError extends StateError {}

/** Raises one error that lists every problem, or nothing if there is none. */
export function raiseAll(problems, type = InputError, title = "") {
  if (!problems.length) return;
  const head = title ? `${title}: ` : "";
  if (problems.length === 1) throw new type(head + problems[0]);
  const shown = problems.slice(0, 10).map((problem) => `  - ${problem}`);
  if (problems.length > 10) shown.push(`  - and ${problems.length - 10} more`);
  throw new type(`${head}${problems.length} problems:\n${shown.join("\n")}`);
}
