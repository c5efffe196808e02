// For a worker process: SIGUSR2 makes its wall clock jump by half a minute, forth and back. Monotonic time goes on.
const JUMP_MS = 30_000;
const Real = Date;
let offsetMs = 0;

globalThis.Date = class extends Real {
  constructor(...args) {
    if (args.length === 0) super(Real.now() + offsetMs);
    else super(...args);
  }

  static now() {
    return Real.now() + offsetMs;
  }
};

process.on("SIGUSR2", () => (offsetMs = offsetMs === 0 ? JUMP_MS : 0));
