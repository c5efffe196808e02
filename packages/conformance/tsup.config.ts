import { defineConfig } from "tsup";
import { library } from "../../tsup.base.ts";

export default defineConfig(library("src/index.ts", "src/sabotage.ts", "src/fixtures.ts", "src/programs.ts"));
