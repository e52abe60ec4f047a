// Package broker is the platform's use of RabbitMQ: topology as data, a publisher with confirms, consumers that come back by themselves. It is
// the only package that imports amqp091.
//
//	        dial ok                      lost, refused, blocked too long
//	away ───────────► linked ──────────────────────────────────────────► away (jittered pause, for ever)
//	                    │ alarm ▲ alarm over
//	                    ▼       │
//	                  blocked ──┘   nothing is written; consumers go on (another connection)
//
// What it promises, and what it does not:
//
//   - A message that was reported Confirmed was routed to a queue and is stored there. Everything else is Unroutable, Refused or Unknown, and Unknown
//     means just that: it may be there, it may come later.
//   - A delivery belongs to the channel that it came on. After that channel is lost its acknowledgement does nothing and says so; the broker delivers the
//     message again, with Redelivered set.
//   - Nothing is ever negatively acknowledged: where something must come again, its channel is closed. A message that is requeued by nack
//     comes back behind its batch, and counts as a failure on some versions and not on others.
//   - A write that blocks for ten seconds, or a confirm that doesn't come in ten, ends the connection: a broker that says nothing is away.
//
// Publishing and consuming use separate connections, since an alarm stops every connection that has published, its acknowledgements too.
package broker
