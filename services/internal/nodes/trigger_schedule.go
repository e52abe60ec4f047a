package nodes

import (
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

// triggerSchedule is a start by the clock: while the version with this node is published, the leader fires it (package schedule of the orchestrator).
func triggerSchedule() node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "trigger.schedule", Version: 1, Kind: flow.KindTrigger, Category: "trigger",
			Title: "Schedule", Description: "Starts the flow by the clock, as long as the version with this node is published. For an input, another catch-up or overlap policy, or bounds, make a schedule of its own (POST /schedules, flowctl schedule create) in place of this node.",
			Config: `{"type": "object", "required": ["cron"], "additionalProperties": false,
				"properties": {
					"cron": {"type": "string", "minLength": 1, "maxLength": 200, "title": "When", "description": "five fields (minute, hour, day of month, month, day of week), six with seconds before them, or @hourly, @daily, @weekly, @monthly, @yearly; L, W and # are known"},
					"timeZone": {"type": "string", "maxLength": 64, "default": "UTC", "title": "Time zone", "description": "IANA name, like Europe/Berlin. When its clocks change, a time that is skipped fires right after the gap, one that comes twice fires once; expressions of every hour go by elapsed time"}}}`,
			Output: `{"type": "object", "required": ["schedule", "scheduledAt"], "properties": {
					"schedule": {"type": "string", "description": "id of this node"},
					"scheduledAt": {"type": "string", "format": "date-time", "description": "the instant that was due, in UTC"}}}`,
			Examples: []node.Example{{Title: "Every working day at eight", Config: map[string]any{"cron": "0 8 * * MON-FRI", "timeZone": "Europe/Berlin"},
				Input:  map[string]any{"schedule": "mornings", "scheduledAt": "2026-03-30T06:00:00Z"},
				Output: map[string]any{"schedule": "mornings", "scheduledAt": "2026-03-30T06:00:00Z"}}},
		},
		Executor: trigger{},
	}
}
