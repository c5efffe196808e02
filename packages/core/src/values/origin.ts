const STEP = Symbol.for("task-backend.step");

/**
 * Notes on what was thrown which step or node of a workflow it comes from, for `error.step` of the run that it ends. The outermost
 * name counts: a node's, not that of the task in it.
 * @returns what to throw on: the same object, or one in its place that can carry a note
 */
export function fromStep(thrown: unknown, step: string): unknown {
  const note: PropertyDescriptorMap = { [STEP]: { value: step, configurable: true } };
  if (typeof thrown !== "object" || thrown === null) return Object.defineProperties(new Error(String(thrown)), note);
  try {
    return Object.defineProperties(thrown, note);
  } catch {
    // Something frozen: the one in its place inherits all that it holds.
    return Object.create(thrown, note);
  }
}

/** The step or node that `fromStep` noted. Never throws. */
export function stepOf(thrown: unknown): string | undefined {
  try {
    const step: unknown = typeof thrown === "object" && thrown !== null ? Reflect.get(thrown, STEP) : undefined;
    return typeof step === "string" ? step : undefined;
  } catch {
    return undefined;
  }
}
