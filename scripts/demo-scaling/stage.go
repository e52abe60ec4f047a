package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"flowplatform/scripts/internal/running"
)

// stage is the platform, as the demonstration uses it.
type stage struct {
	*running.Platform
	token, admin string // of the API
	database     string
	http         *http.Client

	settings map[string]json.RawMessage // as they were, by name; null: not set
	slots    *string                    // MAX_CONCURRENT_FLOWS of the job as it was; nil: it has none
	changed  bool                       // the job
}

// names of the settings that are other ones meanwhile.
func settingNames() []string {
	return []string{"AUTO_SCALING_ENABLED", "MIN_WORKERS", "MAX_WORKERS", "QUEUE_HIGH_WATER_MARK", "QUEUE_LOW_WATER_MARK", "SCALE_DRAIN_TIME", "SCALE_DOWN_WINDOW"}
}

func newStage(ctx context.Context, p *running.Platform) (*stage, error) {
	s := &stage{Platform: p, http: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	var err error
	if s.token, s.database, err = p.Access(ctx); err != nil {
		return nil, err
	}
	if s.admin, err = p.Secret(ctx, "flowplatform/login", "token"); err != nil {
		return nil, err
	}
	return s, nil
}

// call asks the platform's API. A body that is nil is none.
func (s *stage) call(ctx context.Context, token, method, path string, body, out any) error {
	return s.send(ctx, method, s.FrontDoor()+"/api/v1"+path, map[string]string{"Authorization": "Bearer " + token}, body, out)
}

// nomad asks Nomad's API to change something.
func (s *stage) nomad(ctx context.Context, path string, body any) error {
	headers := map[string]string{}
	if s.NomadToken != "" {
		headers["X-Nomad-Token"] = s.NomadToken
	}
	return s.send(ctx, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", s.Ports["NOMAD_PORT"], path), headers, body, nil)
}

func (s *stage) send(ctx context.Context, method, url string, headers map[string]string, body, out any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %.500s", method, req.URL.Path, res.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// scaling is how the workers stand, by the leader.
type scaling struct {
	Pools []struct {
		Pool, Code, Reason                         string
		Desired, Placed, Reporting, Running, Slots int
	}
	Decisions []struct {
		Pool, Outcome string
		At            time.Time
		Detail        struct{ From, To int }
	}
}

func (s *stage) look(ctx context.Context) (scaling, error) {
	var v scaling
	if err := s.call(ctx, s.token, http.MethodGet, "/scaling", nil, &v); err != nil {
		return v, err
	}
	for i := range v.Pools {
		if v.Pools[i].Pool == "default" {
			v.Pools = v.Pools[i : i+1]
			return v, nil
		}
	}
	return v, errors.New("the leader has no picture of the workers yet: is Redis there?")
}

// prepare gives the platform its two small workers, and the settings of the demonstration.
func (s *stage) prepare(ctx context.Context, most int) error {
	if err := s.remember(ctx); err != nil {
		return err
	}
	set := map[string]any{"AUTO_SCALING_ENABLED": true, "MIN_WORKERS": workers, "MAX_WORKERS": workers, "QUEUE_HIGH_WATER_MARK": mark, "QUEUE_LOW_WATER_MARK": mark / 10, "SCALE_DRAIN_TIME": "30s", "SCALE_DOWN_WINDOW": window.String()}
	if err := s.call(ctx, s.admin, http.MethodPut, "/settings", map[string]any{"values": set}, nil); err != nil {
		return err
	}
	small := fmt.Sprint(slots)
	fmt.Printf("preparing: %d workers, MAX_CONCURRENT_FLOWS=%s\n", workers, small)
	s.changed = true
	if err := s.setSlots(ctx, &small); err != nil {
		return err
	}
	if err := until(ctx, func() error {
		v, err := s.look(ctx)
		if err != nil {
			return err
		}
		if p := v.Pools[0]; p.Desired != workers || p.Placed != workers || p.Reporting != workers || p.Slots != workers*slots || p.Running > 0 || p.Code == "deployment" {
			return fmt.Errorf("the platform isn't ready for it: %d workers are wanted, %d placed, %d report %d slots, %d executions run (%s: %s)", p.Desired, p.Placed, p.Reporting, p.Slots, p.Running, p.Code, p.Reason)
		}
		return s.deployed(ctx)
	}); err != nil {
		return err
	}
	if err := s.call(ctx, s.admin, http.MethodPut, "/settings", map[string]any{"values": map[string]any{"MAX_WORKERS": most}}, nil); err != nil {
		return err
	}
	return until(ctx, func() error {
		got, err := s.read(ctx)
		if err == nil && string(got["MAX_WORKERS"].Effective) != fmt.Sprint(most) {
			err = errors.New("the leader doesn't follow the settings yet")
		}
		return err
	})
}

type setting struct {
	Name           string
	Effective, Set json.RawMessage
}

func (s *stage) read(ctx context.Context) (map[string]setting, error) {
	var list struct{ Items []setting }
	if err := s.call(ctx, s.admin, http.MethodGet, "/settings", nil, &list); err != nil {
		return nil, err
	}
	out := map[string]setting{}
	for _, i := range list.Items {
		out[i.Name] = i
	}
	return out, nil
}

// remember keeps what restore puts back.
func (s *stage) remember(ctx context.Context) error {
	now, err := s.read(ctx)
	if err != nil {
		return err
	}
	env, _, err := s.workerJob(ctx)
	if err != nil {
		return err
	}
	if v, ok := env["MAX_CONCURRENT_FLOWS"].(string); ok {
		s.slots = &v
	}
	s.settings = map[string]json.RawMessage{}
	for _, name := range settingNames() {
		if s.settings[name] = now[name].Set; s.settings[name] == nil {
			s.settings[name] = json.RawMessage("null")
		}
	}
	return nil
}

// restore puts back what was changed.
func (s *stage) restore(ctx context.Context) error {
	if s.settings == nil {
		return nil
	}
	fmt.Println("putting back the settings and the workers' slots")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := until(ctx, func() error {
		return s.call(ctx, s.admin, http.MethodPut, "/settings", map[string]any{"values": s.settings}, nil)
	})
	if err != nil {
		err = fmt.Errorf("the settings are not as before (flowctl setting list): %w", err)
	}
	if !s.changed {
		return err
	}
	if e := until(ctx, func() error { return s.setSlots(ctx, s.slots) }); e != nil {
		err = errors.Join(err, fmt.Errorf("the workers' slots are not as before (make up puts them right): %w", e))
	}
	return err
}

// workerJob reads the job of the workers, and its task's environment, which can be changed in place.
func (s *stage) workerJob(ctx context.Context) (env, job map[string]any, err error) {
	var raw json.RawMessage
	if err := s.Nomad(ctx, "/v1/job/worker", &raw); err != nil {
		return nil, nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&job); err != nil {
		return nil, nil, err
	}
	groups, _ := job["TaskGroups"].([]any)
	for _, g := range groups {
		group, _ := g.(map[string]any)
		tasks, _ := group["Tasks"].([]any)
		for _, t := range tasks {
			task, _ := t.(map[string]any)
			if env, ok := task["Env"].(map[string]any); ok && task["Name"] == "worker" {
				return env, job, nil
			}
		}
	}
	return nil, nil, errors.New("the job worker has no task worker with an environment")
}

// setSlots releases the workers' job with other slots, and its counts as they are.
func (s *stage) setSlots(ctx context.Context, value *string) error {
	env, job, err := s.workerJob(ctx)
	if err != nil {
		return err
	}
	if value == nil {
		delete(env, "MAX_CONCURRENT_FLOWS")
	} else {
		env["MAX_CONCURRENT_FLOWS"] = *value
	}
	return s.nomad(ctx, "/v1/jobs", map[string]any{"Job": job, "EnforceIndex": true, "JobModifyIndex": job["JobModifyIndex"], "PreserveCounts": true})
}

// deployed says whether the newest deployment of the workers is through: Nomad takes no other count during one.
func (s *stage) deployed(ctx context.Context) error {
	var d *struct{ Status, StatusDescription string }
	if err := s.Nomad(ctx, "/v1/job/worker/deployment", &d); err != nil {
		return err
	}
	if d != nil && d.Status != "successful" {
		return fmt.Errorf("the workers' release: %s: %s", d.Status, d.StatusDescription)
	}
	return nil
}

func (s *stage) allocations(ctx context.Context) ([]running.Allocation, error) {
	list, err := s.Running(ctx, "worker")
	if err == nil && len(list) != workers {
		err = fmt.Errorf("%d workers run", len(list))
	}
	return list, err
}

// flow makes the flow of the burst.
func (s *stage) flow(ctx context.Context, target string) (string, error) {
	var out struct{ ID string }
	err := s.call(ctx, s.token, http.MethodPost, "/flows", map[string]any{
		"name": "scaling demonstration " + time.Now().UTC().Format("2006-01-02 15:04:05.000"),
		"nodes": []any{map[string]any{"id": "start", "type": "trigger.manual"},
			map[string]any{"id": "call", "type": "http.request", "timeout": "20s", "config": map[string]any{"method": "POST", "url": target + "/call"}}},
		"edges": []any{map[string]any{"from": "start", "to": "call"}},
	}, &out)
	return out.ID, err
}

// succeeded counts the flow's executions that have, in PostgreSQL, once none is open any more.
func (s *stage) succeeded(ctx context.Context, flow string) (n int, err error) {
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return 0, fmt.Errorf("the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = until(ctx, func() error {
		var open int
		const counts = `SELECT count(*) FILTER (WHERE state IN ('queued', 'running', 'waiting')), count(*) FILTER (WHERE state = 'succeeded') FROM executions WHERE flow_id = $1::text::uuid`
		if err := conn.QueryRow(ctx, counts, flow).Scan(&open, &n); err != nil {
			return err
		}
		if open > 0 {
			return fmt.Errorf("%d executions are open", open)
		}
		return nil
	})
	return n, err
}

// until asks four times a second until there is no error, or the context ends: then it gives the last one with it.
func until(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
