package flow_test

import (
	"testing"

	"flowplatform/services/internal/flow"
)

const fourNodes = `
	start trigger.manual
	sum data.set {"values": {"id": "{{ input.orderId }}", "total": "{{ input.total * 2 }}", "note": "order {{ input.orderId }}"}}
	large logic.if {"condition": "{{ steps.sum.output.total > 100 }}"}
	result data.set {"values": {"large": "{{ steps.large.port == 'true' }}", "order": "{{ steps.sum.output }}"}}
	start -> sum
	sum -> large
	large.true -> result
	large.false -> result`

// BenchmarkFourNodes is an execution from Start to its output: trigger, set, if, set.
func BenchmarkFourNodes(b *testing.B) {
	p := mustCompile(b, chart(fourNodes))
	rec := record(map[string]any{"orderId": 7, "total": 75})
	b.ReportAllocs()
	for b.Loop() {
		s := p.Start(rec)
		settle(b, s)
		if s.Outcome() != flow.Succeeded || s.Output() == nil {
			b.Fatal(s.Outcome())
		}
	}
}

// BenchmarkFourNodesWithJSON is the same from the bytes of the input to the bytes of the output.
func BenchmarkFourNodesWithJSON(b *testing.B) {
	p := mustCompile(b, chart(fourNodes))
	rec := record(nil)
	input := []byte(`{"orderId": 7, "total": 75}`)
	b.ReportAllocs()
	for b.Loop() {
		rec.Input = decode(b, string(input))
		s := p.Start(rec)
		settle(b, s)
		_ = encode(b, s.Output())
	}
}

func BenchmarkRestore(b *testing.B) {
	p := mustCompile(b, chart(fourNodes))
	rec := record(map[string]any{"orderId": 7, "total": 75})
	var events []flow.Event
	s := p.Start(rec)
	for s.Outcome() == flow.Running {
		for _, cmd := range s.Next() {
			e := pure(cmd)
			events = append(events, e)
			apply(b, s, e)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := flow.Restore(p, rec, events); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	document := chart(fourNodes)
	b.ReportAllocs()
	for b.Loop() {
		mustCompile(b, document)
	}
}
