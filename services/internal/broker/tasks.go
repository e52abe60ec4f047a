package broker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"iter"

	"flowplatform/services/internal/protocol"
)

// Bounds of a task message. It holds tasks of one queue, one a line: what the broker does for a message (log, sync, confirm, deliver, settle) costs a
// multiple of carrying some hundred bytes more. Tasks that come together are spread over spread messages before any of them takes a second one, so
// that a small burst still goes to several workers.
const (
	maxTasks     = 16
	maxTaskBytes = 128 << 10
	spread       = 4
)

// Defaults of a task whose row names none.
const (
	DefaultPool     = "default"
	DefaultPriority = "normal"
)

// TaskMessage is a message with the tasks that it carries, by their index.
type TaskMessage struct {
	Message
	Carries []int
}

// TaskMessages packs tasks into messages, in their order within each queue. What can't be written as JSON is told to unfit and left out.
func TaskMessages(tasks []protocol.Task, unfit func(i int, err error)) []TaskMessage {
	most := min(maxTasks, (len(tasks)+spread-1)/spread)
	var out []TaskMessage
	open := map[string]int{} // by key: the message that still has room
	for i := range tasks {
		t := &tasks[i]
		body, err := json.Marshal(t)
		if err != nil {
			unfit(i, err)
			continue
		}
		key := TaskKey(cmp.Or(t.Pool, DefaultPool), cmp.Or(t.Priority, DefaultPriority))
		if k, ok := open[key]; ok && len(out[k].Carries) < most && len(out[k].Body)+len(body) < maxTaskBytes {
			out[k].Body = append(append(out[k].Body, '\n'), body...)
			out[k].Carries = append(out[k].Carries, i)
			continue
		}
		open[key] = len(out)
		out = append(out, TaskMessage{Message: Message{Key: key, ID: fmt.Sprintf("%s.%d", t.ID, t.Attempt), Type: "task", Body: body}, Carries: []int{i}})
	}
	return out
}

// Tasks gives the tasks of a message, each as JSON that nobody has looked at yet. The JSON that we write has no line breaks.
func Tasks(body []byte) iter.Seq[[]byte] {
	return bytes.SplitSeq(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
}
