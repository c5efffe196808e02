import {
  ActivityCancellationType,
  CancellationScope,
  ChildWorkflowCancellationType,
  ParentClosePolicy,
  scheduleActivity,
  startChild,
  workflowInfo,
} from "@temporalio/workflow";
import type { Json, RunRequest, StepOutcome } from "@task-backend/core/adapter";
import { activityOptions, priorityOf } from "../activity-options.ts";
import { isWorkflow, nativeOf } from "../native.ts";
import { argumentsOf, toMeta } from "../wire.ts";
import { asWorkflow, decoded, outcomeOf } from "./outcome.ts";

/** The most steps of one run under way at a time: Temporal refuses more than 2,000. */
const MAX_STEPS = 500;

/** The steps of a run, as activities and child workflows of Temporal. */
export class Steps {
  /** The steps that wait for one of those under way to end. */
  readonly #waiting = new Set<() => void>();
  #underWay = 0;

  /** Runs a step in the current scope, which can cancel it. Never rejects. */
  async run(n: number, run: RunRequest, heartbeatTimeoutMs: number | undefined): Promise<StepOutcome> {
    try {
      const output = await this.#inTurn(() => (isWorkflow(run) ? child(n, run) : activityOrChild(n, run, heartbeatTimeoutMs)));
      return { status: "completed", output };
    } catch (error) {
      return outcomeOf(run.name, error);
    }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#underWay < MAX_STEPS) this.#underWay++;
    else await this.#turn();
    try {
      return await work();
    } finally {
      const [next] = this.#waiting;
      if (next) next();
      else this.#underWay--;
    }
  }

  /** Waits for a step to end and takes its place. */
  #turn(): Promise<void> {
    return new Promise((resolve, reject) => {
      const begin = (): void => {
        this.#waiting.delete(begin);
        resolve();
      };
      this.#waiting.add(begin);
      CancellationScope.current().cancelRequested.catch((error: unknown) => {
        this.#waiting.delete(begin);
        reject(error);
      });
    });
  }
}

/** Schedules an activity, whose worker knows what the name is. If it is a workflow, it becomes a child, which ends with its parent. */
async function activityOrChild(n: number, run: RunRequest, heartbeatTimeoutMs: number | undefined): Promise<Json> {
  try {
    return decoded(run.name, await activity(n, run, heartbeatTimeoutMs));
  } catch (error) {
    const workflow = asWorkflow(run, error);
    if (!workflow) throw error;
    return child(n, workflow);
  }
}

function activity(n: number, run: RunRequest, heartbeatTimeoutMs: number | undefined): Promise<Json> {
  return scheduleActivity<Json>(run.name, argumentsOf(run.input, toMeta(run)), {
    ...activityOptions(run, heartbeatTimeoutMs),
    ...nativeOf(run).activity,
    activityId: `${n}`,
    taskQueue: run.queue,
    cancellationType: ActivityCancellationType.TRY_CANCEL,
  });
}

async function child(n: number, run: RunRequest): Promise<Json> {
  const started = await startChild(run.name, {
    ...nativeOf(run).workflow,
    workflowId: `${workflowInfo().workflowId}.${n}`,
    taskQueue: run.queue,
    args: argumentsOf(run.input, toMeta(run)),
    parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
    cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
    priority: priorityOf(run.priority),
  });
  return decoded(run.name, (await started.result()) as Json);
}
