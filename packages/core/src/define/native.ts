/**
 * Engine options that pass through untouched. Each adapter package adds its own key by declaration merging,
 * with the engine's own types:
 * `declare module "@task-backend/core" { interface NativeOptions { bullmq?: JobsOptions } }`
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface NativeOptions {}
