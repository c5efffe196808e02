// Counts the tests, prints the reason of each skip, and ends with the one line that CI reads.
import { checkGuarantees } from "./guarantees.mjs";

export default class SummaryReporter {
  async onTestRunEnd(modules, errors) {
    const counts = { passed: 0, failed: errors.length, skipped: 0 };
    for (const module of modules) {
      counts.failed += module.errors().length;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed" || result.state === "failed") counts[result.state]++;
        else if (result.note) {
          counts.skipped++;
          console.log(`skipped: ${test.fullName} (${result.note})`);
        } else if (!this.filtered) {
          // A skip without a reason counts as a failure.
          counts.failed++;
          console.log(`failed: ${test.fullName} was skipped without a reason`);
        }
      }
    }
    this.counts = counts;
    const { problem, note } = await checkGuarantees();
    if (problem) counts.failed++;
    console.log(problem ? `failed: ${problem}` : note);
    // This runs after the output of the other reporters.
    process.once("exit", (code) => {
      if (counts.failed > 0 && code === 0) process.exitCode = 1;
      console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
    });
  }

  onInit(vitest) {
    this.filtered = vitest.config.testNamePattern !== undefined;
  }
}
