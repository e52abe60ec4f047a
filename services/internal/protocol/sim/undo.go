package sim

import (
	"slices"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/protocol"
)

// undone checks an execution that ended badly: what it did and could undo was undone, each step once, the last first, and nothing else. Poison alone is
// the end of everything.
func (s *Sim) undone(i int, e *execution) {
	if !shapes()[e.shape].program.Undoes() || e.row.Deaths >= protocol.PoisonDeaths {
		return
	}
	var did, undid []string
	for _, rep := range e.reports {
		events, err := protocol.DecodeEvents(lists(rep.Events))
		if err != nil {
			s.fail("bad report", "%v", err)
			return
		}
		if rep.Whole { // it names them in their order
			did, undid = nil, nil
		}
		for _, ev := range events {
			place := placeOf(ev.Node, ev.Iteration)
			switch {
			case ev.Node == "":
			case ev.Type == flow.EventUndo || ev.Type == flow.EventSucceeded && ev.Node[0] == 'u':
				if !slices.Contains(did, place[1:]) {
					did = append(did, place[1:])
				}
			case ev.Type == flow.EventSucceeded && ev.Node[0] == 'z':
				undid = append(undid, place[1:])
				s.Counts.Undone++
			}
		}
	}
	slices.Reverse(did)
	if !slices.Equal(did, undid) {
		s.fail("17 not undone", "E%d %s %s: to be undone %v, was undone %v", i, shapes()[e.shape].drawing, e.row.State, did, undid)
	}
}
