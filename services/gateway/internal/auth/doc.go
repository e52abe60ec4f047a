// Package auth says who calls and what they may do.
//
// People log in with a password and get an access token (a JWT of fifteen minutes) and a refresh token (good once, replaced at each use; a second use
// of one revokes its whole family, since one of the two users of it has stolen it). Programs carry an API token, fp_…, of which the database holds the
// SHA-256 only. Roles are a ladder: viewer < editor < operator < admin; a token never gives more than its user has now.
//
// Who a token belongs to is remembered for two seconds, so a request costs no query and a revoked token is useless within seconds.
package auth
