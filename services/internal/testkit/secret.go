package testkit

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/url"
)

// FormsOf gives a secret in the forms in which it might be left lying about, by their names. Base64 of a longer text holds it at one of three offsets: what
// is the same whatever stands around it is there for each.
func FormsOf(secret string) map[string]string {
	forms := map[string]string{"plain": secret, "hex": hex.EncodeToString([]byte(secret)), "URL": url.QueryEscape(secret)}
	for i, name := range []string{"base64", "base64 +1", "base64 +2"} {
		text := base64.StdEncoding.EncodeToString([]byte("xx"[:i] + secret))
		from, to := (8*i+5)/6, (8*(i+len(secret)))/6
		forms[name] = text[from:to]
	}
	for name, text := range maps.Clone(forms) { // bytes in a dump of a database
		forms[name+" in hex"] = hex.EncodeToString([]byte(text))
	}
	return forms
}
