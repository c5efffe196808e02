import { setTimeout as pause } from "node:timers/promises";

const PAUSE_MS = 100;

/** Through every outage. */
export async function untilAccepted<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if ((error as { code?: string }).code !== "BACKEND_UNAVAILABLE") throw error;
      await pause(PAUSE_MS);
    }
  }
}
