import { defineConfig } from "tsup";
import { library } from "../../tsup.base.ts";

export default defineConfig({
  ...library("src/index.ts", "src/adapter.ts", "src/testing.ts"),
  // Our declarations name AbortSignal and AsyncDisposable: the dependency @types/node has them, whatever `lib` and `types` say.
  dts: { banner: '/// <reference types="node" />' },
});
