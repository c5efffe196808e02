import type { AbortReason } from "../port/port.ts";

/** How an adapter tells a running attempt to end. Lighter than an AbortSignal, which is made only for handlers that use it. */
export class Interruption {
  #reason: AbortReason | undefined;
  #listener: (() => void) | undefined;

  /** Undefined while the attempt may go on. */
  get reason(): AbortReason | undefined {
    return this.#reason;
  }

  /** Interrupts the attempt. The first reason stays. */
  abort(reason: AbortReason): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#listener?.();
  }

  /** @internal For core, which sets one listener per attempt. */
  onAbort(listener: (() => void) | undefined): void {
    this.#listener = listener;
  }
}
