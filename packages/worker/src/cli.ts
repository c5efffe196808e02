#!/usr/bin/env node
import { inspect } from "node:util";
import { listenForSignals } from "./signals.ts";

// Before anything else is loaded: as process 1 of a container there is no other who would act on a signal.
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
