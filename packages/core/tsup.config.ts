import { defineConfig } from "tsup";
import { library } from "../../tsup.base.ts";

export default defineConfig({
  ...library("src/index.ts", "src/adapter.ts", "src/testing.ts"),
  // Our declarations use AbortSignal and AsyncDisposable, which the dependency @types/node has, whatever `lib` and `types` are.
  dts: { banner: '/// <reference types="node" />' },
});
