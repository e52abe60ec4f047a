// Package store is PostgreSQL as the platform uses it: the truth of executions (it implements protocol.Store) and everything that people make.
// It is the only package that knows pgx and SQL; one file per aggregate.
//
// What goes wrong between a program and its database, and what is done about it here, once:
//
//   - A COMMIT whose answer is lost is neither done nor not done. It is never sent with a caller's context, and reported as
//     protocol.ErrUnknown; callers read back by id or key. A warning in place of a plain answer (the wait for a synchronous standby was
//     cancelled) counts as unknown too.
//   - Deadlocks, lock timeouts and serialization failures run the transaction again.
//   - A value that the database refuses (class 22, 23) is protocol.ErrData: the caller bisects.
//   - A server that says it is read-only, or that it is shut down, takes all pooled connections with it: they may be to the old primary.
//   - A cached plan that a migration made stale is tried once more.
//
// Reads by id go to the primary (no 404 after a 202), lists to the replica when there is one.
package store
