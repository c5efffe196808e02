/** The Lua scripts of the installed BullMQ; the package ships no types for them. */
declare module "bullmq/dist/cjs/scripts/index.js" {
  interface Script {
    readonly name: string;
    readonly content: string;
    readonly keys: number;
  }
  const scripts: Readonly<Record<string, Script>>;
  export default scripts;
}
