import { spawn } from "node:child_process";
import { findProgram } from "./engine.ts";

/** One at a time: apt-get holds a lock. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Installs packages of Debian or Ubuntu, without starting their services.
 * @throws Error saying what people can do where that is not possible
 */
export function installPackages(packages: readonly string[], say: (line: string) => void): Promise<void> {
  const installed = last.then(() => install(packages, say));
  last = installed.catch(() => {});
  return installed;
}

async function install(packages: readonly string[], say: (line: string) => void): Promise<void> {
  const names = packages.join(" ");
  if (!findProgram("apt-get")) throw new Error(`install ${names} by hand: there is no apt-get here`);
  if (process.getuid?.() !== 0) throw new Error(`run "sudo apt-get install ${names}": only root may install packages`);
  say(`Installing ${names} (apt-get)`);
  const args = ["install", "-y", "--no-install-recommends", ...packages];
  if (await aptGet(args)) return;
  // The lists of packages may be missing or old.
  await aptGet(["update"]);
  if (!(await aptGet(args))) throw new Error(`apt-get could not install ${names}`);
}

function aptGet(args: readonly string[]): Promise<boolean> {
  // Runlevel 1 keeps the packages from starting services.
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  return new Promise((resolve) => {
    const child = spawn("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=300", ...args], { env, stdio: "ignore" });
    child.once("error", () => resolve(false));
    child.once("exit", (code) => resolve(code === 0));
  });
}
