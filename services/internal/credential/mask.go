package credential

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Masked stands where a secret stood.
const Masked = "[secret]"

// Shorter secrets are not masked: they stand in too much by chance. What a step gives back on purpose must be more alike than what an error says.
const (
	maskInErrors  = 6
	maskInOutputs = 12
)

// Masker takes secrets out of what a step says: servers and libraries repeat what they were sent (an echo, an error with a URL). It is the second line of
// defence, behind nodes that don't say secrets.
type Masker struct{ errors, outputs *strings.Replacer }

// NewMasker makes one for the secrets of an opened credential; nil when there is nothing to mask.
func NewMasker(o *Opened) *Masker {
	var short, long []string
	add := func(secret string) {
		for _, form := range formsOf(secret) {
			if len(secret) >= maskInErrors {
				short = append(short, form)
			}
			if len(secret) >= maskInOutputs {
				long = append(long, form)
			}
		}
	}
	for _, s := range o.Secret {
		add(s)
		if user := o.Public["user"]; user != "" && s != "" { // Authorization: Basic
			basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + s))
			short, long = append(short, basic), append(long, basic)
		}
	}
	if len(short) == 0 {
		return nil
	}
	return &Masker{replacer(short), replacer(long)}
}

// formsOf lists a secret as it is, and as it may be written.
func formsOf(s string) []string {
	quoted, _ := json.Marshal(s) // a text
	return []string{s, string(quoted[1 : len(quoted)-1]), url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:],
		base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)), base64.RawStdEncoding.EncodeToString([]byte(s)), hex.EncodeToString([]byte(s))}
}

// replacer prefers the longer form where several begin.
func replacer(forms []string) *strings.Replacer {
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, f := range slices.Compact(forms) {
		pairs = append(pairs, f, Masked)
	}
	return strings.NewReplacer(pairs...)
}

// Error masks an error's text.
func (m *Masker) Error(s string) string {
	if m == nil {
		return s
	}
	return m.errors.Replace(s)
}

// ErrorData masks an error's data.
func (m *Masker) ErrorData(v any) any {
	if m == nil {
		return v
	}
	return masked(v, m.errors)
}

// Output masks what a step gives to the next ones.
func (m *Masker) Output(v any) any {
	if m == nil {
		return v
	}
	return masked(v, m.outputs)
}

// masked gives the value with its texts and names masked; a value without any is the very same.
func masked(v any, r *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return r.Replace(v)
	case []any:
		for i := range v {
			v[i] = masked(v[i], r)
		}
	case map[string]any:
		for k, item := range v {
			item = masked(item, r)
			if clean := r.Replace(k); clean != k {
				delete(v, k)
				k = clean
			}
			v[k] = item
		}
	}
	return v
}
