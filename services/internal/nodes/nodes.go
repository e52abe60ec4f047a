// Package nodes holds the built-in nodes, one file each with its test beside it. To add one: write its file, and a line in Builtin.
package nodes

import (
	"encoding/json"
	"fmt"

	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
	"flowplatform/services/internal/nodes/script"
)

// Options of the built-in nodes.
type Options struct {
	HTTP    HTTPOptions
	Scripts *script.Host // runs data.code; nil: it can't be run, only checked
	Calls   Caller       // flow.call starts flows with it; nil: they can't be started, only checked
	AMQPURL string       // of the platform's own broker, as flows use it: amqp.publish without a credential; "": there is none
}

// Builtin lists the built-in node types. What only reads their specs (the gateway) may give zero Options.
func Builtin(o Options) []node.Type {
	return []node.Type{
		triggerManual(),
		triggerWebhook(),
		triggerSchedule(),
		triggerError(),
		dataSet(),
		dataAggregate(),
		dataTransform(),
		dataCode(o.Scripts),
		logicIf(),
		logicSwitch(),
		logicFilter(),
		logicMerge(),
		flowFail(),
		flowDelay(),
		flowSignal(),
		flowApproval(),
		taskRemote(),
		flowCall(o.Calls),
		flowStop(),
		logicForeach(),
		logicWhile(),
		logicTry(),
		flowRespond(),
		httpRequest(o.HTTP),
		sqlQuery(o.HTTP),
		redisCommand(o.HTTP),
		amqpPublish(o.HTTP, o.AMQPURL),
	}
}

// Catalogue is the catalogue of the built-in nodes.
func Catalogue(o Options) (*node.Catalogue, error) { return node.NewCatalogue(Builtin(o)...) }

// wrong says that a value of the configuration is not what the node takes, now that its expressions are evaluated.
func wrong(field string, v any, want string) *node.Error {
	shown, err := flow.EncodeValue(v)
	if err != nil || len(shown) > 100 {
		shown = fmt.Appendf(nil, "a %T", v)
	}
	return &node.Error{Code: "config", Message: fmt.Sprintf("%s is %s, it must be %s", field, shown, want)}
}

func text(config map[string]any, field string) (string, *node.Error) {
	switch v := config[field].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	default:
		return "", wrong(field, v, "a text")
	}
}

// literal is what a text in a URL or a header makes of a value.
func literal(v any) (string, bool) {
	switch t := v.(type) {
	case string:
		return t, true
	case json.Number:
		return t.String(), true
	case bool, int, float64:
		b, err := flow.EncodeValue(t)
		return string(b), err == nil
	}
	return "", false
}
