package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flowplatform/services/internal/testkit"
)

// between stands between remote workers and the gateway: it sees what is handed out to whom, and what is completed.
type between struct {
	*httptest.Server

	mu     sync.Mutex
	held   map[string]string // task: worker that polled it last
	done   map[string]string // task: who completed it
	wrong  []string
	failed int // calls that the gateway didn't answer
}

func newBetween(t *testing.T, gateway string) *between {
	b := &between{held: map[string]string{}, done: map[string]string{}}
	to, err := url.Parse(gateway)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
		b.mu.Lock()
		b.failed++
		b.mu.Unlock()
		w.WriteHeader(http.StatusBadGateway)
	}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(asked))
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		b.note(r.URL.Path, asked, answer)
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *between) note(path string, asked []byte, answer *httptest.ResponseRecorder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case strings.HasSuffix(path, "/poll") && answer.Code == 200:
		var poll struct{ Worker string }
		var got struct{ Tasks []struct{ ID string } }
		if json.Unmarshal(asked, &poll) != nil || json.Unmarshal(answer.Body.Bytes(), &got) != nil {
			b.wrong = append(b.wrong, "a poll that can't be read")
		}
		for _, task := range got.Tasks {
			if who := b.done[task.ID]; who != "" {
				b.wrong = append(b.wrong, fmt.Sprintf("task %s was completed by %s and handed out to %s", task.ID, who, poll.Worker))
			}
			b.held[task.ID] = poll.Worker
		}
	case strings.HasSuffix(path, "/complete") && answer.Code == 204:
		id := strings.Split(path, "/")[5]
		b.done[id] = b.held[id]
	}
}

// by counts what a worker has completed, and what it holds.
func (b *between) by(worker string) (done, holds int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, who := range b.held {
		switch {
		case b.done[id] == worker:
			done++
		case b.done[id] == "" && who == worker:
			holds++
		}
	}
	return done, holds
}

// remoteWorkers runs the example workers, in Python and for Node, against a gateway that is killed, and kills one of them: each task is completed once.
func remoteWorkers(t *testing.T, p *platform, _ *target) {
	const executions, items = 4, 12
	var made struct{ Token string }
	if status := p.api("POST", "/tokens", map[string]any{"name": "remote", "role": "worker", "queues": []string{"shout"}}, &made); status != 201 {
		t.Fatalf("token: %d", status)
	}
	front := newBetween(t, p.base())
	worker := func(program, file, name string) *testkit.Process {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatalf("%v: scripts/install --role dev installs it", err)
		}
		dir, err := filepath.Abs("../../docs/examples/remote-worker")
		if err != nil {
			t.Fatal(err)
		}
		w, err := testkit.StartProcess(testkit.ProcessOptions{Name: name, Path: path, Args: []string{filepath.Join(dir, file), "shout", name}, Dir: t.TempDir(),
			Env: []string{"PATH=/usr/bin:/bin", "FLOW_SERVER=" + front.URL, "FLOW_TOKEN=" + made.Token, "PYTHONDONTWRITEBYTECODE=1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Kill)
		return w
	}
	flow := p.createFlow(map[string]any{"name": "Shout", "nodes": []map[string]any{
		{"id": "start", "type": "trigger.manual"},
		{"id": "each", "type": "logic.foreach", "config": map[string]any{"items": "{{ input.texts }}", "concurrency": items}},
		{"id": "shout", "type": "task.remote", "parent": "each", "config": map[string]any{"queue": "shout", "heartbeat": "3s", "input": map[string]any{"text": "{{ item }}", "seconds": 0.2}}},
	}, "edges": []map[string]any{{"from": "start", "to": "each"}}})
	var ids []string
	for k := range executions {
		var texts []string
		for i := range items {
			texts = append(texts, fmt.Sprintf("%c%d", 'a'+k, i))
		}
		ids = append(ids, p.accept(flow, map[string]any{"texts": texts}))
	}
	python := worker("python3", "worker.py", "python")
	node := worker("node", "worker.mjs", "node")
	reaches := func(what string, check func() error) {
		t.Helper()
		testkit.Eventually(t, 90*time.Second, what, func() error {
			if err := check(); err != nil {
				return fmt.Errorf("%w\n%s\n%s", err, tailOf(python.Output()), tailOf(node.Output()))
			}
			return nil
		})
	}
	reaches("both have completed something", func() error {
		a, _ := front.by("python")
		b, _ := front.by("node")
		if a == 0 || b == 0 {
			return fmt.Errorf("python %d, node %d", a, b)
		}
		return nil
	})
	p.gateway.stop(true) // and it stays away until a worker has noticed
	reaches("a call meets the gateway's death", func() error {
		front.mu.Lock()
		defer front.mu.Unlock()
		if front.failed == 0 {
			return fmt.Errorf("all calls were answered")
		}
		return nil
	})
	p.gateway.start()
	reaches("Python's worker has a task", func() error {
		if _, holds := front.by("python"); holds == 0 {
			return fmt.Errorf("it has none")
		}
		return nil
	})
	python.Kill()
	python = worker("python3", "worker.py", "python again")
	p.gateway.waitReady()
	p.allSucceed(flow, executions, 120*time.Second)
	for k, id := range ids {
		var x struct {
			Output []struct{ Text, By string }
		}
		p.api("GET", "/executions/"+id, nil, &x)
		for i, o := range x.Output {
			if o.Text != fmt.Sprintf("%c%d", 'A'+k, i) || o.By == "" {
				t.Errorf("execution %d, item %d: %+v", k, i, o)
			}
		}
		if len(x.Output) != items {
			t.Errorf("execution %d has %d outputs", k, len(x.Output))
		}
	}
	front.mu.Lock()
	defer front.mu.Unlock()
	for _, w := range front.wrong {
		t.Error(w)
	}
	t.Logf("%d tasks completed, %d calls without an answer", len(front.done), front.failed)
}
