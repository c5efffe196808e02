import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { defineConfig } from "tsup";
import { library } from "../../tsup.base.ts";

/** Bundles the interpreter for Temporal's sandbox, once, so that workers do not have to. */
async function bundleInterpreter(): Promise<void> {
  const { bundleWorkflowCode, DefaultLogger } = await import("@temporalio/worker");
  const path = (file: string): string => fileURLToPath(new URL(file, import.meta.url));
  const { code } = await bundleWorkflowCode({
    workflowsPath: path("src/interpreter/index.ts"),
    payloadConverterPath: path("src/interpreter/payload-converter.ts"),
    logger: new DefaultLogger("WARN"),
  });
  await writeFile(path("dist/interpreter.js"), code);
}

export default defineConfig({ ...library("src/index.ts"), onSuccess: bundleInterpreter });
