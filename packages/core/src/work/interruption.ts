import type { AbortReason } from "../port/port.ts";

/** How an adapter tells a running attempt to end. Lighter than an AbortSignal, which is only made for handlers that look at it. */
export class Interruption {
  #reason: AbortReason | undefined;
  #listener: (() => void) | undefined;

  /** Undefined while the attempt may go on. */
  get reason(): AbortReason | undefined {
    return this.#reason;
  }

  /** The first reason stays. */
  abort(reason: AbortReason): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#listener?.();
  }

  /** @internal For core, which listens once an attempt. */
  onAbort(listener: (() => void) | undefined): void {
    this.#listener = listener;
  }
}
