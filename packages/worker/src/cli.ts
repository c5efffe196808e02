#!/usr/bin/env node
import { inspect } from "node:util";
import { listenForSignals } from "./signals.ts";

// This comes before any other import: as process 1 of a container, nothing else would act on a signal.
const stop = listenForSignals();

import("./main.ts")
  .then(({ main }) => main(process.argv.slice(2), process.env, stop))
  .then(
    (code) => process.exit(code),
    (error: unknown) => {
      process.stderr.write(`task-backend-worker: this is a bug, please report it: ${inspect(error)}\n`);
      process.exit(1);
    },
  );
