package app

import (
	"errors"
	"strings"
	"testing"
	"time"

	"flowplatform/services/internal/store"
	"flowplatform/services/internal/testkit"
)

type tokens struct {
	AccessToken, RefreshToken string
	ExpiresIn                 int
}

func TestLogin(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	login := func(password string) *response {
		return b.do(t, "POST", "/auth/login", "", map[string]string{"email": "ADMIN@localhost ", "password": password})
	}
	var l, next tokens
	login(b.password).want(t, 200).into(t, &l)
	if l.ExpiresIn != 900 {
		t.Errorf("%+v", l)
	}
	var me struct{ Email, Role string }
	b.do(t, "GET", "/auth/me", l.AccessToken, nil).want(t, 200).into(t, &me)
	if me.Email != "admin@localhost" || me.Role != "admin" {
		t.Errorf("%+v", me)
	}
	refresh := func(token string) *response {
		return b.do(t, "POST", "/auth/refresh", "", map[string]string{"refreshToken": token})
	}
	refresh(l.RefreshToken).want(t, 200).into(t, &next)
	if next.RefreshToken == l.RefreshToken {
		t.Error("the refresh token wasn't replaced")
	}
	refresh(l.RefreshToken).want(t, 401)    // used: somebody has stolen it
	refresh(next.RefreshToken).want(t, 401) // so its family is revoked
	refresh("fr_nonsense").want(t, 401)

	login(b.password).want(t, 200).into(t, &l)
	b.do(t, "POST", "/auth/logout", l.AccessToken, nil).want(t, 204)
	refresh(l.RefreshToken).want(t, 401)
	b.do(t, "POST", "/auth/logout", b.admin, nil).want(t, 409) // an API token is no login

	b.do(t, "POST", "/auth/login", "", map[string]string{"email": "nobody@localhost", "password": "x"}).want(t, 401)
	for range 5 {
		login("wrong").want(t, 401)
	}
	braked := login(b.password).want(t, 429) // the right one must wait too
	if braked.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	if strings.Contains(string(braked.body), b.password) {
		t.Error("the answer shows the password")
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	type token struct {
		ID, Name, Role, Token string
		RateLimit             int
	}
	var editor token
	b.do(t, "POST", "/tokens", b.admin, `{"name": "ci", "role": "editor"}`).want(t, 201).into(t, &editor)
	if !strings.HasPrefix(editor.Token, "fp_") || editor.Role != "editor" {
		t.Errorf("%+v", editor)
	}
	b.do(t, "GET", "/users", editor.Token, nil).want(t, 403)
	b.do(t, "POST", "/tokens", editor.Token, `{"name": "more", "role": "admin"}`).want(t, 403)
	b.do(t, "POST", "/tokens", editor.Token, `{"name": "more", "rateLimit": -1}`).want(t, 403)
	b.do(t, "POST", "/tokens", b.admin, `{"name": "old", "expiresAt": "2001-01-01T00:00:00Z"}`).want(t, 422)
	var again token
	b.do(t, "POST", "/tokens", b.admin, `{"name": "ci"}`).want(t, 201).into(t, &again)
	if again.Name != "ci (2)" || again.Role != "admin" {
		t.Errorf("%+v", again)
	}
	list := b.do(t, "GET", "/tokens", b.admin, nil).want(t, 200)
	if strings.Contains(string(list.body), editor.Token) || !strings.Contains(string(list.body), editor.ID) {
		t.Errorf("%s", list.body)
	}
	b.do(t, "GET", "/flows", editor.Token, nil).want(t, 200)
	b.do(t, "DELETE", "/tokens/"+editor.ID, b.admin, nil).want(t, 204)
	b.do(t, "GET", "/flows", editor.Token, nil).want(t, 401)
	b.do(t, "DELETE", "/tokens/"+editor.ID, b.admin, nil).want(t, 404)

	// Revoked elsewhere (another gateway): within seconds here.
	b.do(t, "GET", "/flows", again.Token, nil).want(t, 200)
	if _, err := b.postgres.Exec(b.database, "DELETE FROM tokens WHERE id = '"+again.ID+"'"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, "the token is refused", func() error {
		if r := b.do(t, "GET", "/flows", again.Token, nil); r.status != 401 {
			return errors.New("still taken")
		}
		return nil
	})
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{noRedis: true})
	var u struct{ ID, Email, Role, Password string }
	b.do(t, "POST", "/users", b.admin, `{"email": "Ada@Example.org", "role": "operator"}`).want(t, 201).into(t, &u)
	if u.Email != "ada@example.org" || len(u.Password) < 20 {
		t.Errorf("%+v", u)
	}
	b.do(t, "POST", "/users", b.admin, `{"email": "ada@example.org", "role": "viewer"}`).want(t, 409)
	if p := b.do(t, "POST", "/users", b.admin, `{"email": "nonsense", "role": "king", "password": "short", "more": 1}`).want(t, 422).pointers(t); len(p) != 3 {
		t.Errorf("%v", p)
	}
	login := func(password string) *response {
		return b.do(t, "POST", "/auth/login", "", map[string]string{"email": u.Email, "password": password})
	}
	var l tokens
	login(u.Password).want(t, 200).into(t, &l)
	b.do(t, "GET", "/users", l.AccessToken, nil).want(t, 403)
	b.do(t, "PATCH", "/users/"+u.ID, b.admin, `{"role": "admin"}`).want(t, 200)
	b.do(t, "GET", "/users", l.AccessToken, nil).want(t, 200) // at once: what was believed is forgotten
	b.do(t, "PATCH", "/users/"+u.ID, l.AccessToken, `{"role": "viewer"}`).want(t, 409)
	b.do(t, "DELETE", "/users/"+u.ID, l.AccessToken, nil).want(t, 409)
	b.do(t, "PATCH", "/users/"+u.ID, b.admin, `{"password": "another password"}`).want(t, 200)
	b.do(t, "POST", "/auth/refresh", "", map[string]string{"refreshToken": l.RefreshToken}).want(t, 401)
	login("another password").want(t, 200)
	b.do(t, "PATCH", "/users/"+u.ID, b.admin, `{"disabled": true}`).want(t, 200)
	b.do(t, "GET", "/auth/me", l.AccessToken, nil).want(t, 401)
	login("another password").want(t, 401)
	b.do(t, "DELETE", "/users/"+u.ID, b.admin, nil).want(t, 204)
	entries, _, err := b.owner.ListAudit(t.Context(), store.Page{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range entries {
		seen[e.Action+" "+e.Object]++
		if strings.Contains(string(e.Detail), "another password") {
			t.Errorf("the audit shows a password: %s", e.Detail)
		}
	}
	for what, n := range map[string]int{"create user": 2, "update user": 3, "delete user": 1, "login user": 2} {
		if seen[what] != n {
			t.Errorf("audit: %d × %s, want %d (%v)", seen[what], what, n, seen)
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, setupOptions{change: func(o *Options) { o.APIRateLimit = 20 }})
	id := ""
	{
		var f struct{ ID string }
		b.do(t, "POST", "/flows", b.bench, strings.Replace(simpleFlow, "%q", `"limited"`, 1)).want(t, 201).into(t, &f)
		id = f.ID
	}
	refused := 0
	for range 30 {
		r := b.do(t, "POST", "/flows/"+id+"/executions", b.admin, `{"input":{"n":1}}`)
		if r.header.Get("RateLimit-Limit") != "20" || r.header.Get("RateLimit-Remaining") == "" || r.header.Get("RateLimit-Reset") == "" {
			t.Fatalf("%v", r.header)
		}
		if r.status == 429 {
			refused++
			if r.want(t, 429).header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		}
	}
	if refused < 9 || refused > 10 {
		t.Errorf("%d of 30 were refused, the limit is 20", refused)
	}
	for range 50 {
		r := b.do(t, "POST", "/flows/"+id+"/executions", b.bench, `{"input":{"n":1}}`).want(t, 202)
		if r.header.Get("RateLimit-Limit") != "" {
			t.Fatal("a token without a limit has one")
		}
	}
	for range 60 { // guessing tokens is limited by address
		if r := b.do(t, "GET", "/flows", "fp_guess", nil); r.status == 429 {
			return
		}
	}
	t.Error("60 wrong tokens were not slowed down")
}
