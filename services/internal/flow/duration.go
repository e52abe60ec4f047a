package flow

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// MarshalJSON shows a Duration as people write it: "1m30s", "10m".
func (d Duration) MarshalJSON() ([]byte, error) { return []byte(`"` + d.String() + `"`), nil }

// UnmarshalJSON takes "1m30s", or a number of milliseconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	v, err := DecodeValue(data)
	if err != nil {
		return err
	}
	if v == nil {
		return nil
	}
	got, err := durationOf(v)
	if err != nil {
		return err
	}
	*d = got
	return nil
}

// String gives the shortest form that means the same.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func durationOf(v any) (Duration, error) {
	switch x := v.(type) {
	case int:
		if x > math.MaxInt64/int(time.Millisecond) || x < math.MinInt64/int(time.Millisecond) {
			return 0, fmt.Errorf("%d ms is longer than a duration can be", x)
		}
		return Duration(time.Duration(x) * time.Millisecond), nil
	case float64:
		ns := x * float64(time.Millisecond)
		if math.Abs(ns) > math.MaxInt64/2 {
			return 0, fmt.Errorf("%v ms is longer than a duration can be", x)
		}
		return Duration(ns), nil
	case json.Number:
		return 0, fmt.Errorf("%s ms is longer than a duration can be", x)
	case string:
		got, err := time.ParseDuration(x)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration: write it like \"30s\", \"1m30s\" or \"500ms\", or as a number of milliseconds", x)
		}
		return Duration(got), nil
	}
	return 0, fmt.Errorf("a duration is a string like \"1m30s\" or a number of milliseconds, not %s", kindOf(v))
}
