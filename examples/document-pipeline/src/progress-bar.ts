import { progress } from "@clack/prompts";

/** A progress bar on a terminal; elsewhere one line for each tenth. */
export function progressBar(total: number, title: string): { advance(): void; stop(): void } {
  let done = 0;
  if (process.stdout.isTTY) {
    const bar = progress({ max: total });
    bar.start(title);
    return {
      advance: () => bar.advance(1, `${title}: ${++done} of ${total}`),
      stop: () => bar.stop(`${done} of ${total} settled`),
    };
  }
  console.log(title);
  return {
    advance: () => {
      done++;
      if (Math.floor((done * 10) / total) > Math.floor(((done - 1) * 10) / total)) console.log(`  ${done} of ${total}`);
    },
    stop: () => {},
  };
}
