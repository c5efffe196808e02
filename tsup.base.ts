import type { Options } from "tsup";

/** The one build recipe of every package: only the entry points differ. */
export const library = (...entry: string[]): Options => ({
  entry,
  format: "esm",
  target: "node20",
  dts: true,
  sourcemap: true,
  clean: true,
});
