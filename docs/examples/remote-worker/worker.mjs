#!/usr/bin/env node
// A remote worker for Node, standard library only.
//
//   FLOW_SERVER=http://localhost:8080 FLOW_TOKEN=... node worker.mjs QUEUE [NAME]
//
// It takes tasks of a queue, up to AT_ONCE of them at a time, does them, and completes them. Write your own work() and keep the rest. The gateway may restart at any moment, and so
// may this program: what was completed is never handed out again, and what was not comes again, with the same idempotency key.
import http from "node:http";
import https from "node:https";
import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const SERVER = (process.env.FLOW_SERVER ?? "http://localhost:8080").replace(/\/$/, "");
const TOKEN = process.env.FLOW_TOKEN;
const AT_ONCE = 4;

// Refused: the platform has said no, and will say so again.
class Refused extends Error {}

// Failed: throw it in work() to end the task with an error.
class Failed extends Error {
  constructor(code, message, retryable = false) {
    super(message);
    Object.assign(this, { code, retryable });
  }
}

function once(path, body, timeout) {
  return new Promise((resolve, reject) => {
    const url = new URL(`${SERVER}/api/v1/remote/${path}`);
    const request = (url.protocol === "https:" ? https : http).request(url, {
      method: "POST", timeout, headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" },
    }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => { text += part; });
      answer.on("error", reject);
      answer.on("end", () => {
        const status = answer.statusCode;
        if (status === 429 || status >= 500) return reject(new Error(`the platform answers ${status}`));
        if (status >= 400) return reject(new Refused(`${status}: ${text}`));
        try {
          resolve(text ? JSON.parse(text) : null);
        } catch (error) {
          reject(error);
        }
      });
    });
    request.on("timeout", () => request.destroy(new Error("no answer in time")));
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

// call asks until there is an answer: every call may be repeated.
async function call(path, body, timeout = 15_000) {
  for (let pause = 200; ; pause = Math.min(pause * 2, 10_000)) {
    try {
      return await once(path, body, timeout);
    } catch (error) {
      if (error instanceof Refused) throw error;
      console.error(`${path}: ${error.message}; again in ${pause} ms`);
    }
    await sleep(pause * (0.5 + Math.random() / 2));
  }
}

async function perform(task) {
  const lost = new AbortController(); // aborted: the work is for nothing
  const beat = setInterval(() => {
    once(`tasks/${task.id}/heartbeat`, { lease: task.lease }, 10_000).then(
      (answer) => { if (answer.cancel) lost.abort(); },
      (error) => { if (error instanceof Refused) lost.abort(); }, // another worker has it; other errors: the next one is soon enough
    );
  }, task.heartbeatSeconds * 1000);
  let path, end;
  try {
    path = "complete";
    end = { output: await work(task.input, task.idempotencyKey, lost.signal) };
  } catch (error) {
    path = "fail";
    end = { error: { code: error instanceof Failed ? error.code : "error", message: String(error.message || error) }, retryable: error.retryable ?? true };
  }
  clearInterval(beat);
  if (lost.signal.aborted) return;
  await call(`tasks/${task.id}/${path}`, { lease: task.lease, ...end }).catch((error) => console.error(`task ${task.id}: ${error.message}`));
}

// work is yours. Look at lost.aborted in long work; give key to what you call, so that nothing happens twice.
async function work(input, key, lost) {
  if (typeof input?.text !== "string") throw new Failed("no-text", "the input has no field text");
  await sleep((input.seconds ?? 0) * 1000, null, { signal: lost }); // stands for something long
  return { text: input.text.toUpperCase(), by: "node" };
}

const [queue, name = `${os.hostname()}-${process.pid}`] = process.argv.slice(2);
let stopping = false;
process.on("SIGTERM", () => { stopping = true; });
const busy = new Set();
while (!stopping) {
  const max = AT_ONCE - busy.size;
  if (max === 0) {
    await Promise.race(busy);
    continue;
  }
  const { tasks } = await call(`${queue}/poll`, { worker: name, max, wait: "20s" }, 40_000);
  for (const task of tasks) {
    const done = perform(task).finally(() => busy.delete(done));
    busy.add(done);
  }
}
await Promise.all(busy);
