package script

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/quickjs"
)

const (
	maxFrame  = 64 << 20
	childData = 1 << 30 // bytes of memory that a child may have at most
	stackSize = 2000    // frames; QuickJS writes a trace of all of them into the error of an endless recursion
)

// prelude makes the function that runs a script. It takes from the script what would tell one run from the next: the clock, real random numbers, the collector of garbage.
const prelude = `(function () {
	'use strict';
	const { parse, stringify } = JSON, big = BigInt, RealDate = Date, indirect = eval, construct = Reflect.construct;
	for (const name of ['Atomics', 'SharedArrayBuffer', 'WeakRef', 'FinalizationRegistry', 'performance', 'gc', 'navigator', 'queueMicrotask']) delete globalThis[name];
	return function (code, data, marked, now, a, b, nothing) {
		function Date(...args) {
			if (!new.target) return new RealDate(now).toString();
			return construct(RealDate, args.length ? args : [now], new.target === Date ? RealDate : new.target);
		}
		Date.prototype = RealDate.prototype;
		Date.prototype.constructor = Date;
		Date.now = () => now; Date.parse = RealDate.parse; Date.UTC = RealDate.UTC;
		globalThis.Date = Date;
		Math.random = () => { // sfc32 over the seed
			a |= 0; b |= 0;
			a = (a + 0x6d2b79f5) | 0;
			let t = Math.imul(a ^ (a >>> 15), 1 | b);
			t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
			return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
		};
		const lines = [], shown = (v) => typeof v === 'string' ? v : typeof v === 'bigint' ? v + 'n' : String(stringify(v, (k, v) => typeof v === 'bigint' ? v + 'n' : v));
		const log = (...args) => { if (lines.length < 100) lines.push(args.map(shown).join(' ').slice(0, 1000)); };
		globalThis.console = { log, info: log, warn: log, error: log, debug: log };
		const d = marked ? parse(data, (k, v) => typeof v === 'string' && v[0] === '\0' ? (v[1] === 'n' ? big(v.slice(2)) : v.slice(2)) : v) : parse(data);
		const out = indirect("(function (input, steps, item, index) {'use strict';" + code + "\n})")(d.input, d.steps, d.item, d.index);
		if (out instanceof Promise) throw new TypeError('the script returned a Promise: there is nothing to wait for, so leave async and await out');
		const text = stringify(out, (k, v) => typeof v === 'bigint' ? '\0n' + v : typeof v === 'string' && v[0] === '\0' ? '\0s' + v : v);
		return stringify(lines) + '\n' + (text === nothing ? 'null' : text);
	};
})()`

// serve answers requests until its input ends.
func serve(in io.Reader, out io.Writer) int {
	limit := unix.Rlimit{Cur: childData, Max: childData}
	_ = unix.Setrlimit(unix.RLIMIT_DATA, &limit)                        // the machine's own limit stays where it can't be had
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o644) // likewise
	debug.SetGCPercent(50)
	r, w := bufio.NewReader(in), bufio.NewWriter(out)
	for {
		var q Request
		if err := readFrame(r, &q); err != nil {
			if errors.Is(err, io.EOF) {
				return 0
			}
			return 1
		}
		// The one who asked may be gone, and a built-in may not let itself be interrupted: nobody else would end us then.
		watchdog := time.AfterFunc(time.Duration(q.Millis)*time.Millisecond+2*time.Second, func() { os.Exit(3) })
		a := evaluate(q)
		watchdog.Stop()
		a.Resident = resident()
		if err := writeFrame(w, a); err != nil {
			return 1
		}
	}
}

// evaluate runs a script in a machine of its own.
func evaluate(q Request) (a Response) {
	vm, err := quickjs.NewVM()
	if err != nil {
		return Response{Failure: Memory, Message: err.Error()}
	}
	defer vm.Close()
	vm.SetMemoryLimit(uintptr(q.MemoryMB) << 20)
	vm.SetMaxStackSize(stackSize)
	if err := vm.SetEvalTimeout(time.Duration(q.Millis) * time.Millisecond); err != nil {
		return Response{Failure: Threw, Message: err.Error()}
	}
	run, err := vm.EvalValue(prelude, quickjs.EvalGlobal)
	if err != nil {
		return failed(err)
	}
	defer run.Free()
	v, err := run.Call(quickjs.UndefinedValue, q.Code, q.Data, q.Marked, float64(q.Now), int(int32(q.Seed)), int(int32(q.Seed>>32)))
	if err != nil {
		return failed(err)
	}
	text, ok := v.(string)
	logs, output, cut := strings.Cut(text, "\n")
	if !ok || !cut {
		return Response{Failure: Threw, Message: fmt.Sprintf("the script left a %T behind instead of its output", v)}
	}
	_ = json.Unmarshal([]byte(logs), &a.Logs) // ours
	if len(output) > q.MaxOutput {
		return Response{Logs: a.Logs, Failure: TooLarge, Message: fmt.Sprintf("the output has %d bytes as JSON, %d are allowed", len(output), q.MaxOutput)}
	}
	a.Output = output
	return a
}

func failed(err error) Response {
	var e *quickjs.Error
	if !errors.As(err, &e) {
		return Response{Failure: Threw, Message: err.Error()}
	}
	if e.Name == "InternalError" {
		switch e.Message {
		case "interrupted":
			return Response{Failure: Timeout}
		case "out of memory":
			return Response{Failure: Memory}
		case "stack overflow":
			return Response{Failure: Stack}
		}
	}
	message := e.Error()
	if e.LineNumber > 0 {
		message += fmt.Sprintf(" (line %d, column %d)", e.LineNumber, e.ColumnNumber)
	} else if frame, _, _ := strings.Cut(strings.TrimSpace(e.Stack), "\n"); frame != "" {
		message += " (" + strings.TrimSpace(frame) + ")"
	}
	if len(message) > 2000 {
		message = message[:2000] + " …"
	}
	return Response{Failure: Threw, Message: strings.ToValidUTF8(message, "\uFFFD")}
}

// Check tells what is wrong with a script's grammar; "": nothing.
func Check(code string) string {
	vm, err := quickjs.NewVM()
	if err != nil {
		return ""
	}
	defer vm.Close()
	vm.SetMemoryLimit(64 << 20)
	if _, err := vm.Compile("(function (input, steps, item, index) {'use strict';"+code+"\n})", quickjs.EvalGlobal); err != nil {
		return failed(err).Message
	}
	return ""
}

func resident() int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0
	}
	return pages
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("script: a frame of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func writeFrame(w *bufio.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("script: a frame of %d bytes", len(b))
	}
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Flush()
}
