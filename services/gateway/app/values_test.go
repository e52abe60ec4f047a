package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/payload"
	"flowplatform/services/internal/protocol"
	"flowplatform/services/internal/store"
)

const anyFlow = `{"name": %q, "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "set", "type": "data.set", "config": {"values": {"n": 1}}}], "edges": [{"from": "start", "to": "set"}]}`

// A large input is stored with its execution, its task names it, and the API shows it: up to 1 MiB in place, beyond as a URL.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	var f struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(anyFlow, "large")).want(t, 201).into(t, &f)
	tasks := b.tasks(t)
	type shown struct {
		Input, Output       json.RawMessage
		InputRef, OutputRef *struct {
			URL  string
			Size int
		}
	}
	for name, size := range map[string]int{"shown": 400 << 10, "named": 2 << 20, "largest": 16<<20 - 100} {
		text := strings.Repeat("x", size)
		x := b.run(t, f.ID, `{"input": {"z": 1.50, "text": "`+text+`", "a":  [1 , 2]}}`)
		canonical := `{"a":[1,2],"text":"` + text + `","z":1.5}`
		task := receive(t, tasks)
		if task.Input != nil || task.InputRef == nil || task.InputRef.Ref != payload.Ref([]byte(canonical)) || task.InputRef.Size != len(canonical) {
			t.Fatalf("%s: %+v", name, task.InputRef)
		}
		id, err := protocol.ParseID(x.ID)
		if err != nil {
			t.Fatal(err)
		}
		output := []byte(`["` + text[:size/2] + `"]`)
		out := store.NewPayload(id, output)
		if err := b.owner.PutPayload(t.Context(), out); err != nil {
			t.Fatal(err)
		}
		ref := &protocol.Value{Ref: payload.Ref(output), Size: len(output)}
		finishWith(t, b, protocol.Entry{Execution: id, OutputRef: ref, Events: fmt.Appendf(nil, `[{"t":"ok","n":"set","try":1,"u":true,"at":"2030-01-02T03:04:05Z","r":{"r":"%s","s":%d}}]`, ref.Ref, ref.Size)})
		var got shown
		b.do(t, "GET", "/executions/"+x.ID, b.admin, nil).want(t, 200).into(t, &got)
		if inPlace := size <= 1<<20; inPlace != (string(got.Input) == canonical) || inPlace != (got.InputRef == nil) {
			t.Errorf("%s: input of %d bytes, %+v", name, len(got.Input), got.InputRef)
		}
		if inPlace := size/2 < 1<<20; inPlace != (string(got.Output) == string(output)) || inPlace != (got.OutputRef == nil) {
			t.Errorf("%s: output of %d bytes, %+v", name, len(got.Output), got.OutputRef)
		}
		for _, r := range []struct {
			at *struct {
				URL  string
				Size int
			}
			want string
		}{{(*struct {
			URL  string
			Size int
		})(got.InputRef), canonical}, {(*struct {
			URL  string
			Size int
		})(got.OutputRef), string(output)}} {
			if r.at == nil {
				continue
			}
			if v := b.do(t, "GET", r.at.URL, b.admin, nil).want(t, 200); string(v.body) != r.want || r.at.Size != len(r.want) {
				t.Errorf("%s: %s gives %d bytes, want %d", name, r.at.URL, len(v.body), len(r.want))
			}
		}
		var steps struct {
			Items []struct {
				Node, Status string
				Output       json.RawMessage
				OutputRef    *struct{ URL string }
			}
		}
		b.do(t, "GET", "/executions/"+x.ID+"/steps", b.admin, nil).want(t, 200).into(t, &steps)
		for i, want := range []string{canonical, string(output)} {
			s := steps.Items[i]
			if s.OutputRef == nil && string(s.Output) != want || s.OutputRef != nil && (len(want) <= 1<<20 || !strings.HasSuffix(s.OutputRef.URL, payload.Ref([]byte(want)))) {
				t.Errorf("%s: step %s has %d bytes, %+v", name, s.Node, len(s.Output), s.OutputRef)
			}
		}
		b.do(t, "GET", "/executions/"+x.ID+"/values/"+strings.Repeat("0", 64), b.admin, nil).want(t, 404)
		b.do(t, "GET", "/executions/"+x.ID+"/values/nonsense", b.admin, nil).want(t, 404)
		b.do(t, "GET", "/executions/"+x.ID+"/values/"+payload.Ref([]byte(canonical)), "", nil).want(t, 401)
	}
}

// What doesn't say how large it is pays for room only once it is large.
func TestLargeBodiesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	var f struct{ ID string }
	b.do(t, "POST", "/flows", b.admin, fmt.Sprintf(anyFlow, "chunked")).want(t, 201).into(t, &f)
	url := "http://" + b.app.Addr() + "/api/v1/flows/" + f.ID + "/executions"
	post := func(size int) int {
		body := struct{ *strings.Reader }{strings.NewReader(`{"input": "` + strings.Repeat("x", size) + `"}`)} // hides its length
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+b.bench)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0 // the server needn't read all of what it refuses
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for _, c := range []struct{ size, want int }{{100, 202}, {1 << 20, 202}, {17 << 20, 413}, {2 << 20, 202}} {
		if got := post(c.size); got != c.want && got != 0 {
			t.Errorf("%d bytes: %d, want %d", c.size, got, c.want)
		}
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	id := b.flow(t, "logs")
	x := b.run(t, id, `{"input": {"n": 1}}`)
	var page struct {
		Items      []struct{ Message, Level, Node string }
		NextCursor string
	}
	b.do(t, "GET", "/executions/"+x.ID+"/logs", b.admin, nil).want(t, 200).into(t, &page)
	if len(page.Items) != 0 || page.NextCursor != "" {
		t.Fatalf("%+v", page)
	}
	pid, err := protocol.ParseID(x.ID)
	if err != nil {
		t.Fatal(err)
	}
	const reports, each = 40, 5
	n := 0
	for seq := 1; seq <= reports; seq++ {
		var lines []protocol.LogLine
		for range each {
			lines = append(lines, protocol.LogLine{At: time.Unix(int64(n), 0), Level: "info", Node: "set", Try: 1, Message: fmt.Sprint(n), Fields: json.RawMessage(`{"a":1}`)})
			n++
		}
		raw, err := json.Marshal(lines)
		if err != nil {
			t.Fatal(err)
		}
		e := protocol.Entry{Kind: protocol.EntryStep, Execution: pid, Attempt: 1, Seq: seq, Base: seq - 1, Logs: raw}
		if seq == reports {
			e.Kind, e.State = protocol.EntryFinal, protocol.Succeeded
		}
		apply(t, b, e)
	}
	next, cursor := 0, ""
	for {
		b.do(t, "GET", "/executions/"+x.ID+"/logs?cursor="+cursor+"&limit=7", b.admin, nil).want(t, 200).into(t, &page)
		for _, l := range page.Items {
			if l.Message != fmt.Sprint(next) || l.Node != "set" || l.Level != "info" {
				t.Fatalf("line %d is %+v", next, l)
			}
			next++
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
		page.NextCursor = ""
	}
	if next != n {
		t.Errorf("%d lines, want %d", next, n)
	}
	b.do(t, "GET", "/executions/"+x.ID+"/logs?cursor=nonsense", b.admin, nil).want(t, 422)
	b.do(t, "GET", "/executions/"+store.NewID().String()+"/logs", b.admin, nil).want(t, 404)
}

func finishWith(t *testing.T, b *bundle, e protocol.Entry) {
	t.Helper()
	e.Kind, e.Attempt, e.Seq, e.State = protocol.EntryFinal, 1, 1, protocol.Succeeded
	apply(t, b, e)
}

func apply(t *testing.T, b *bundle, e protocol.Entry) {
	t.Helper()
	if err := b.owner.Txn(context.Background(), "collect", func(tx protocol.Tx) error {
		_, err := protocol.ApplyReports(context.Background(), tx, 0, []protocol.Entry{e}, true)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
