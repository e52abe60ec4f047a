package auth

import "flowplatform/services/internal/protocol"

// Role is what somebody may do; each includes those below it.
type Role int

// The roles.
const (
	Nobody   Role = iota
	Worker        // works on remote tasks and does nothing else; of API tokens only, and not below the others: Operator may too
	Viewer        // reads
	Editor        // writes flows, starts executions
	Operator      // cancels, retries, drains
	Admin         // users
)

var roleNames = [...]string{"", "worker", "viewer", "editor", "operator", "admin"}

func (r Role) String() string { return roleNames[r] }

// ParseRole reads a role's name; Nobody for what isn't one.
func ParseRole(s string) Role {
	for i, name := range roleNames {
		if name == s {
			return Role(i)
		}
	}
	return Nobody
}

// Principal is who calls.
type Principal struct {
	User  protocol.ID
	Email string
	Role  Role
	// Token is the API token that was used; zero for people who logged in.
	Token     protocol.ID
	TokenName string
	// Session is the login's family of refresh tokens; zero for API tokens.
	Session protocol.ID
	// Queues are those that a token of the role Worker may poll; nil: all.
	Queues []string
	// RateLimit is the token's own: requests a minute, 0 the default, -1 none.
	RateLimit int

	key string
}

// Key names the caller for limits and scopes: the token, or the user.
func (p *Principal) Key() string { return p.key }

// Actor names the caller in the audit.
func (p *Principal) Actor() string {
	if p.TokenName != "" {
		return p.Email + " (token " + p.TokenName + ")"
	}
	return p.Email
}
