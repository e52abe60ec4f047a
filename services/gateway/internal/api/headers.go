package api

import (
	"net/http"
	"slices"
	"strings"
)

// Headers that every answer has. A page of the API's documentation, or a hook, sets a policy of its own over this one.
var (
	nosniff    = []string{"nosniff"}
	noPolicy   = []string{"default-src 'none'; frame-ancestors 'none'"}
	noReferrer = []string{"no-referrer"}
	noStore    = []string{"no-store"}
)

// What scripts of other origins may send and read.
const (
	corsMethods = "GET, POST, PUT, PATCH, DELETE"
	corsRequest = "Authorization, Content-Type, Idempotency-Key, If-Match, X-Request-Id"
	corsAnswer  = "ETag, Location, Retry-After, Idempotency-Replayed, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
	corsMaxAge  = "600"
)

// secure sets the headers of every answer, and lets the origins of WS_CORS_ORIGINS call the API. Callers prove themselves by a header, never by a cookie, so
// no credentials are allowed for, and a page elsewhere can do nothing in its reader's name.
func (a *API) secure(next http.Handler) http.Handler {
	anyOrigin := slices.Contains(a.o.Origins, "*")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"], h["Content-Security-Policy"], h["Referrer-Policy"], h["Cache-Control"] = nosniff, noPolicy, noReferrer, noStore
		if len(a.o.Origins) == 0 || !strings.HasPrefix(r.URL.Path, "/api/") {
			next.ServeHTTP(w, r)
			return
		}
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" || !anyOrigin && !slices.Contains(a.o.Origins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsRequest)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h.Set("Access-Control-Expose-Headers", corsAnswer)
		next.ServeHTTP(w, r)
	})
}
