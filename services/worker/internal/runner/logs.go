package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// Bounds of what nodes log: of a try, and of all that rides on one report.
const (
	logsOfTry    = 64 << 10
	logsOfReport = 256 << 10
)

// lines are what the nodes of a run have logged since its last report; guarded by run.mu.
type lines struct {
	list  []protocol.LogLine
	bytes int
	full  bool // said so already
}

// add takes a line, unless there are too many.
func (t *run) addLine(l protocol.LogLine) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines.full {
		return
	}
	if t.lines.bytes += len(l.Message) + len(l.Fields) + 100; t.lines.bytes > logsOfReport {
		t.lines.full = true
		l.Level, l.Message, l.Fields = "warn", "truncated: the steps of this report have logged more than 256 KiB together", nil
	}
	t.lines.list = append(t.lines.list, l)
}

// takeLines gives the lines for a report, as JSON; nil when there are none.
func (t *run) takeLines() json.RawMessage {
	t.mu.Lock()
	list := t.lines.list
	t.lines = lines{}
	t.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	raw, err := json.Marshal(list)
	if err != nil { // texts and fields were cleaned before
		t.r.log.Error("log lines can't be written as JSON", "error", err, "execution", t.text)
		return nil
	}
	return raw
}

// stepLog is the slog.Handler of one try of a node: its lines ride on the run's next report. They never hold what was opened of credentials, and stay out of
// the worker's own log, which is for operators, but at the level debug.
type stepLog struct {
	t       *run
	cmd     *flow.Command
	secrets *secrets
	ops     []func(slog.Handler) slog.Handler // With and WithGroup, in order
	size    *int                              // of all lines of the try; guarded by run.mu
}

var _ slog.Handler = (*stepLog)(nil)

// Enabled is NODE_CORE_LOG_LEVEL.
func (h *stepLog) Enabled(ctx context.Context, level slog.Level) bool {
	return h.t.r.opts.NodeLog.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *stepLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(n slog.Handler) slog.Handler { return n.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *stepLog) WithGroup(name string) slog.Handler {
	return h.with(func(n slog.Handler) slog.Handler { return n.WithGroup(name) })
}

func (h *stepLog) with(op func(slog.Handler) slog.Handler) slog.Handler {
	c := *h
	c.ops = append(c.ops[:len(c.ops):len(c.ops)], op)
	return &c
}

// Handle takes a line.
func (h *stepLog) Handle(ctx context.Context, r slog.Record) error {
	if own := h.t.r.opts.NodeLog; own.Enabled(ctx, slog.LevelDebug) {
		own.LogAttrs(ctx, r.Level, h.secrets.text(r.Message), slog.String("execution", h.t.text), slog.String("node", h.cmd.Key.Node), slog.Int("try", h.cmd.Try))
	}
	line := protocol.LogLine{At: r.Time.UTC(), Level: levelName(r.Level), Node: h.cmd.Key.Node, Iteration: h.cmd.Key.Iteration, Try: h.cmd.Try, Message: clean(h.secrets.text(r.Message)), Fields: h.fields(ctx, r)}
	h.t.mu.Lock()
	before := *h.size
	*h.size += len(line.Message) + len(line.Fields)
	h.t.mu.Unlock()
	switch {
	case before > logsOfTry:
		return nil
	case before+len(line.Message)+len(line.Fields) > logsOfTry:
		h.t.mu.Lock()
		*h.size = logsOfTry + 1
		h.t.mu.Unlock()
		line.Level, line.Message, line.Fields = "warn", "truncated: this try of the step has logged more than 64 KiB", nil
	}
	h.t.addLine(line)
	return nil
}

// fields writes the attributes as a JSON object; nil when there are none.
func (h *stepLog) fields(ctx context.Context, r slog.Record) json.RawMessage {
	if r.NumAttrs() == 0 && len(h.ops) == 0 {
		return nil
	}
	var b bytes.Buffer
	var own slog.Handler = slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: r.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		if a.Value.Kind() == slog.KindString { // before quotes are escaped
			a.Value = slog.StringValue(h.secrets.text(a.Value.String()))
		}
		return a
	}})
	for _, op := range h.ops {
		own = op(own)
	}
	if err := own.Handle(ctx, r); err != nil {
		return nil
	}
	raw := []byte(h.secrets.text(string(bytes.TrimSpace(b.Bytes()))))
	if len(raw) <= 2 || len(raw) > logsOfTry || !json.Valid(raw) {
		return nil
	}
	return raw
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}
