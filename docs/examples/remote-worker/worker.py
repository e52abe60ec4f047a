#!/usr/bin/env python3
"""A remote worker in Python, standard library only.

    FLOW_SERVER=http://localhost:8080 FLOW_TOKEN=... python3 worker.py QUEUE [NAME]

It takes tasks of a queue one at a time, does them, and completes them. Write your own work() and keep the rest. The gateway may restart at any moment, and so may this
program: what was completed is never handed out again, and what was not comes again, with the same idempotency key.
"""
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

SERVER = os.environ.get("FLOW_SERVER", "http://localhost:8080").rstrip("/")
TOKEN = os.environ["FLOW_TOKEN"]
stopping = threading.Event()


class Refused(Exception):
    """The platform has said no, and will say so again."""

    def __init__(self, status, detail):
        super().__init__(f"{status}: {detail}")
        self.status = status


class Failed(Exception):
    """Raise it in work() to end the task with an error."""

    def __init__(self, code, message, retryable=False):
        super().__init__(message)
        self.code, self.retryable = code, retryable


def once(path, body, timeout):
    request = urllib.request.Request(SERVER + "/api/v1/remote/" + path, json.dumps(body).encode(), {"Authorization": "Bearer " + TOKEN, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        if error.code == 429 or error.code >= 500:
            raise OSError(f"the platform answers {error.code}") from error
        raise Refused(error.code, error.read().decode(errors="replace")) from error


def call(path, body, timeout=15.0):
    """Asks until there is an answer: every call may be repeated."""
    pause = 0.2
    while True:
        try:
            return once(path, body, timeout)
        except (OSError, ValueError) as error:  # ValueError: an answer that broke off
            print(f"{path}: {error}; again in {pause:.1f}s", file=sys.stderr, flush=True)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(pause * 2, 10)


def keep(task, over, lost):
    """Sends heartbeats until the work is over, and tells when it is for nothing."""
    while not over.wait(task["heartbeatSeconds"]):
        try:
            if once(f"tasks/{task['id']}/heartbeat", {"lease": task["lease"]}, 10)["cancel"]:
                lost.set()
        except Refused:  # another worker has it
            lost.set()
        except (OSError, ValueError):
            pass  # the next one is soon enough


def do(task):
    over, lost = threading.Event(), threading.Event()
    threading.Thread(target=keep, args=(task, over, lost), daemon=True).start()
    path, end = f"tasks/{task['id']}/", {"lease": task["lease"]}
    try:
        end["output"] = work(task["input"], task["idempotencyKey"], lost)
        path += "complete"
    except Failed as error:
        end.update(error={"code": error.code, "message": str(error)}, retryable=error.retryable)
        path += "fail"
    except Exception as error:  # a mistake of ours: perhaps another try helps
        end.update(error={"code": "error", "message": str(error) or repr(error)}, retryable=True)
        path += "fail"
    finally:
        over.set()
    try:
        if not lost.is_set():
            call(path, end)
    except Refused as error:
        print(f"task {task['id']}: {error}", file=sys.stderr, flush=True)


def work(value, key, lost):
    """Yours. Look at lost.is_set() in long work; give key to what you call, so that nothing happens twice."""
    if not isinstance(value, dict) or "text" not in value:
        raise Failed("no-text", "the input has no field text")
    lost.wait(value.get("seconds", 0))  # stands for something long
    return {"text": value["text"].upper(), "by": "python"}


def main():
    queue = sys.argv[1]
    name = sys.argv[2] if len(sys.argv) > 2 else f"{socket.gethostname()}-{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.is_set():
        for task in call(f"{queue}/poll", {"worker": name, "max": 1, "wait": "20s"}, timeout=40)["tasks"]:
            do(task)


if __name__ == "__main__":
    main()
