package api

import (
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
)

//go:embed docs.html
var docsPage string

// docsRoutes serves the OpenAPI document and a page that shows it. The page brings its own script: no other host is asked for anything.
func (a *API) docsRoutes() {
	spec, err := json.MarshalIndent(a.huma.OpenAPI(), "", " ")
	if err != nil {
		panic("the OpenAPI document can't be written: " + err.Error()) // a fault of the code above, seen by every test
	}
	a.router.Get("/api/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
		_, _ = w.Write(spec)
	})
	policy := "default-src 'none'; connect-src 'self'; style-src '" + hashOf(docsPage, "style") + "'; script-src '" + hashOf(docsPage, "script") + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	a.router.Get("/api/docs", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		_, _ = w.Write([]byte(docsPage))
	})
}

// hashOf is the source hash of the page's only element of that name, for the policy.
func hashOf(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	inner, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(inner))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
