// Package dev is the whole platform in one process: gateway, orchestrator and worker, the same code as everywhere, on a broker in memory and one PostgreSQL that it
// starts as a child. It is for trying flows out and for flow tests.
//
//	directory/
//	  lock             held by this process and by its PostgreSQL, so that two never write the same files
//	  secrets.json     keys and tokens, made once, 0600
//	  login.json       the first administrator and a token for flowctl, made once, 0600
//	  postgres/        the database cluster: everything that is kept
//	  worker/          the lock of the worker's session: after a kill its successor knows at once that it is dead
//	  dev.log          what the services log; postgres.log what PostgreSQL does
//
// Beginning: lock → PostgreSQL (made at first) → migrations → orchestrator, gateway, worker. Ending is the reverse, PostgreSQL last. If this process is killed the kernel
// tells PostgreSQL to end; the next start waits for that by the lock.
package dev
