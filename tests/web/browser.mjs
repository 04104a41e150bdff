// A browser that Python drives: each line in is {"code", "args"}, run as the body of an async
// function (page, context, browser, args); each line out is {"value"} or {"error"}.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const require = createRequire(process.env.PAGE_MODULES + "/");
const { chromium } = require("playwright-core");

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const options = JSON.parse(process.argv[2] ?? "{}");
const context = await browser.newContext({ viewport: { width: 1200, height: 860 }, ...options });
const page = await context.newPage();
const seen = { foreign: [], errors: [], bytes: {} };
page.setDefaultTimeout(Number(process.env.PAGE_TIMEOUT ?? 15000));
page.on("request", (r) => { const u = new URL(r.url()); if (u.hostname !== "127.0.0.1" && u.protocol !== "data:") seen.foreign.push(r.url()); });
page.on("pageerror", (e) => seen.errors.push(String(e)));
page.on("console", (m) => { if (m.type() === "error" && !/Failed to load resource|ERR_INCOMPLETE/.test(m.text())) seen.errors.push(m.text()); });
page.on("response", async (r) => { const s = await r.request().sizes().catch(() => null); if (s) seen.bytes[r.url()] = s.responseBodySize; });
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const Fn = Object.getPrototypeOf(async () => undefined).constructor;

for await (const line of createInterface({ input: process.stdin })) {
  const { code, args } = JSON.parse(line);
  let out;
  try {
    const value = await new Fn("page", "context", "browser", "seen", "axe", "args", code)(page, context, browser, seen, axe, args);
    out = { value: value ?? null };
  } catch (e) {
    out = { error: String(e?.stack ?? e) };
  }
  process.stdout.write(JSON.stringify(out) + "\n");
}
await browser.close();
