// Package accept takes executions durably and hands them to the broker.
//
//	Submit ─► waiting ─► COMMIT (≤ 2 at once, ≤ 500 rows) ─► the caller answers 202
//	                        │
//	                        └─► publish (mandatory, confirm) ─► mark handed, up to a second later, what is still queued
//
// A 2xx means committed. A caller that goes away changes nothing: the commit goes on without its context. A commit whose answer was lost is read
// back, and done again with the same ids when nothing is there, which is safe: the rows' primary key lets one of the two happen.
//
// What follows the commit may fail in every way: rows that are queued and not handed out are found by the reconciler. So a broker that is
// away or has an alarm loses nothing, and no caller waits for it.
package accept
