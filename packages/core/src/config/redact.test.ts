import { inspect } from "node:util";
import { expect, test } from "vitest";
import { redactUrl, withoutSecrets } from "./redact.ts";

const MARK = "MARKED";

test.each([
  [`redis://user:${MARK}@host:6379/0?token=${MARK}#${MARK}`, "redis://host:6379/0"],
  [`redis://:pa/${MARK}@127.0.0.1:1`, "redis://127.0.0.1:1"],
  [`postgres://user:12/${MARK}@host:1/db`, "postgres://host:1/db"],
  [`postgres://user:${MARK}@one:1,two:2/db`, "postgres://one:1,two:2/db"],
  [`redis://user:12?${MARK}@host`, "redis://[hidden]"],
  [`redis://user:a#${MARK}@host`, "redis://[hidden]"],
  [`redis://host/0?password=a@${MARK}`, "redis://[hidden]"],
  [`redis://user:${MARK}`, "redis://[hidden]"],
  [`user:${MARK}@host:1`, "[hidden]"],
  [`${MARK}@host`, "[hidden]"],
  [`host=h password=${MARK}`, "[hidden]"],
  [`not a url ://user:${MARK}@host?x`, "[hidden]"],
  ["host:6379", "host:6379"],
  ["redis://[::1]:6379/0", "redis://[::1]:6379/0"],
  ["sqlite:/data/a@b.db?x=1", "sqlite:/data/a@b.db"],
  ["sqlite::memory:", "sqlite::memory:"],
  ["./tasks.db", "./tasks.db"],
])("%s is shown as %s", (url, shown) => expect(redactUrl(url)).toBe(shown));

test.each([`redis://user:pa/${MARK}@host`, `redis://user:pa%2F${MARK}@host`, `redis://host?password=${MARK}`])(
  "an error of somebody else's code loses the secrets of %s, and keeps what it is",
  (url) => {
    const nested = Object.assign(new Error(`connect ${MARK}`), { client: { options: { password: MARK } }, host: MARK });
    const error = Object.assign(new TypeError(`Invalid URL: ${url}`, { cause: nested }), { input: url, code: "ERR_INVALID_URL" });
    const all = new AggregateError([error, new Error(decodeURIComponent(url))], "both failed");
    const cleaned = withoutSecrets(all, url);
    expect(cleaned).toBe(all);
    expect(inspect(cleaned, { depth: 10, showHidden: true })).not.toContain(MARK);
    expect(error).toMatchObject({ code: "ERR_INVALID_URL", cause: nested });
    expect(error.message).toMatch(/^Invalid URL: .*\[hidden\]/);
  },
);

test("without a secret in the URL, errors stay as they are", () => {
  const error = new Error("connect to redis://127.0.0.1:1 failed");
  expect(withoutSecrets(error, "redis://127.0.0.1:1").message).toBe("connect to redis://127.0.0.1:1 failed");
  expect(withoutSecrets(new Error("postgres is away"), "postgres://postgres:postgres@h").message).toBe("postgres is away");
});
