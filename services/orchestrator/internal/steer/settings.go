package steer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"flowplatform/services/internal/settings"
	"flowplatform/services/internal/store"
)

// KVPrefix is where settings stand in Consul KV.
const KVPrefix = "flow/settings/"

// kvActor is who changes what was changed in Consul KV.
const kvActor = "consul-kv"

// settle brings what stands in Consul KV into PostgreSQL, and follows what stands there. What is refused is remembered with the reason, and the old one stays.
func (t *run) settle(ctx context.Context) error {
	if t.state == nil {
		s, err := t.read(ctx)
		if err != nil {
			return err
		}
		t.state = s
	}
	next := settings.State{Defaults: settings.Map(t.o.Defaults), Seen: maps.Clone(t.state.Seen)}
	for _, r := range t.state.Refused {
		if r.Source == kvActor {
			next.Refused = append(next.Refused, r)
		}
	}
	kvErr := t.fromKV(ctx, &next)
	rows, err := t.o.Store.Settings(ctx)
	if err != nil {
		return errors.Join(kvErr, err)
	}
	over := map[string]json.RawMessage{}
	by := map[string]string{}
	for _, r := range rows {
		over[r.Name], by[r.Name] = r.Value, r.UpdatedBy
	}
	values, problems := settings.Apply(t.o.Defaults, over)
	if len(problems) == 0 {
		if values != t.values {
			t.o.Log.Info("settings have changed", "settings", values)
		}
		t.values = values
	} else { // the gateway checks too, so this is the hand of somebody else, or another environment of ours: the last good ones stay
		for _, p := range problems {
			next.Refused = append(next.Refused, settings.Refusal{Name: p.Name, Value: string(over[p.Name]), Source: "settings, set by " + by[p.Name], Reason: p.Message, At: t.since(p.Name, p.Message)})
		}
	}
	next.Effective = settings.Map(t.values)
	return errors.Join(kvErr, t.write(ctx, next))
}

// read reads what the leader before us held to be so.
func (t *run) read(ctx context.Context) (*settings.State, error) {
	var s settings.State
	b, err := t.o.Store.LeaderState(ctx, settings.StateName)
	if errors.Is(err, store.ErrNotFound) {
		return &s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s); err != nil { // of another build: begin anew
		return &settings.State{}, nil
	}
	if v, problems := settings.Apply(t.o.Defaults, s.Effective); len(problems) == 0 {
		t.values = v // until the rows say otherwise
	}
	return &s, nil
}

// fromKV takes each value of Consul KV when it has changed since it was looked at last: what people change elsewhere later stays.
func (t *run) fromKV(ctx context.Context, next *settings.State) error {
	if t.o.KV == nil {
		return nil
	}
	found, err := t.o.KV(ctx)
	if err != nil {
		return err
	}
	if next.Seen == nil {
		next.Seen = map[string]string{}
	}
	fresh := map[string]json.RawMessage{}
	for name, value := range found {
		if before, ok := next.Seen[name]; ok && before == value {
			continue
		}
		next.Seen[name] = value
		next.Forget(name)
		raw, err := json.Marshal(string(bytes.TrimSpace([]byte(value))))
		if err != nil {
			return err
		}
		fresh[name] = raw
	}
	for name := range next.Seen { // taken out of KV: what was set stays
		if _, ok := found[name]; !ok {
			delete(next.Seen, name)
			next.Forget(name)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	values := t.sift(fresh, found, next)
	change := map[string]json.RawMessage{}
	for name := range fresh {
		if spec, ok := settings.Of(name); ok {
			change[name] = spec.Value(values)
		}
	}
	_, err = t.o.Store.ChangeSettings(ctx, change, kvActor)
	return err
}

// sift takes out of fresh what can't be followed, one round after the other, since what is left may not stand without it.
func (t *run) sift(fresh map[string]json.RawMessage, found map[string]string, next *settings.State) settings.Values {
	for {
		merged := settings.Map(t.values)
		maps.Copy(merged, fresh)
		values, problems := settings.Apply(t.o.Defaults, merged)
		if len(problems) == 0 {
			return values
		}
		refuse := map[string]string{}
		for _, p := range problems {
			if _, ok := fresh[p.Name]; ok {
				refuse[p.Name] = p.Message
			}
		}
		if len(refuse) == 0 { // the name is that of the other half of a pair
			for name := range fresh {
				refuse[name] = problems[0].Error()
			}
		}
		for _, name := range slices.Sorted(maps.Keys(refuse)) {
			t.o.Log.Warn("a setting in Consul KV is refused", "name", name, "reason", refuse[name])
			next.Refused = append(next.Refused, settings.Refusal{Name: name, Value: found[name], Source: kvActor, Reason: refuse[name], At: time.Now().UTC()})
			delete(fresh, name)
		}
		if len(fresh) == 0 {
			return t.values
		}
	}
}

// since keeps the time of a refusal that is known.
func (t *run) since(name, reason string) time.Time {
	for _, r := range t.state.Refused {
		if r.Name == name && r.Reason == reason {
			return r.At
		}
	}
	return time.Now().UTC()
}

// write writes the state when it has changed.
func (t *run) write(ctx context.Context, next settings.State) error {
	after, err := json.Marshal(next)
	if err != nil {
		return err
	}
	before, err := json.Marshal(*t.state)
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) || !t.term.Valid() {
		return nil
	}
	if err := t.o.Store.PutLeaderState(ctx, t.number, settings.StateName, after); err != nil {
		return err
	}
	t.state = &next
	return nil
}
