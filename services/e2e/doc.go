// Package e2e runs the services together, as processes, against real servers, and breaks them: what was accepted must become final, once each, and
// no confirmed step may run again. All is counted from outside: by the HTTP server that the flows call, and through the API.
package e2e
