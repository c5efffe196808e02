import { loadAdapter, type Adapter, type AdapterContext } from "@task-backend/core/adapter";
import { saboteurs } from "./saboteurs.ts";

/** Names the rule to break and the backend to break it on, as `18:sqlite`, for worker processes. */
export const SABOTAGE_VARIABLE = "TASK_BACKEND_SABOTAGE";

/** The adapter package of worker processes in sabotaged cases. It wraps the adapter that the variable names. */
export async function createAdapter(context: AdapterContext): Promise<Adapter> {
  const [, rule, type] = /^(\d+):(.+)$/s.exec(context.env[SABOTAGE_VARIABLE] ?? "") ?? [];
  const saboteur = saboteurs.find((one) => one.rule === Number(rule));
  if (!saboteur || type === undefined) throw new Error(`${SABOTAGE_VARIABLE} must be RULE:TYPE, such as 18:sqlite.`);
  const { root, url, options } = context;
  const adapter = await loadAdapter(
    { type, typeFrom: SABOTAGE_VARIABLE, root, ...(url !== undefined && { url }), options },
    context.env,
    context.log,
  );
  return saboteur.wrap(adapter);
}
