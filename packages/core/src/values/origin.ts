const STEP = Symbol.for("task-backend.step");

/**
 * Notes on a thrown value which step or node of a workflow it comes from, for `error.step` of the run. The outermost name counts:
 * that of a node, not that of the task in it.
 * @returns the value to throw: the same object, or a replacement that can hold the note
 */
export function fromStep(thrown: unknown, step: string): unknown {
  const note: PropertyDescriptorMap = { [STEP]: { value: step, configurable: true } };
  if (typeof thrown !== "object" || thrown === null) return Object.defineProperties(new Error(String(thrown)), note);
  try {
    return Object.defineProperties(thrown, note);
  } catch {
    // The object is frozen: the replacement inherits its properties.
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
