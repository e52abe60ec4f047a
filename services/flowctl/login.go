package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"flowplatform/services/flowctl/internal/client"
)

type loginCommand struct {
	Email        string `help:"E-mail address of the user; asked for when no token is given."`
	PasswordFile string `help:"File that holds the password; otherwise it is asked for, or read from standard input." type:"existingfile"`
}

type identity struct {
	Server string `json:"server"`
	User   string `json:"user"`
	Role   string `json:"role"`
}

func (l *loginCommand) Run(a *app) error {
	server, token := strings.TrimRight(a.server, "/"), a.token
	if server == "" {
		server = "http://localhost:8080"
	}
	c, err := client.Anonymous(server, token)
	if err != nil {
		return err
	}
	if err := c.TrustFile(a.caFile); err != nil {
		return err
	}
	if token == "" {
		if token, err = l.newToken(a, c); err != nil {
			return err
		}
		c.Token = token
	}
	id, err := whoami(a, c)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	if err := client.Save(client.Login{Server: server, Token: token, CA: c.CA}); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "Logged in to %s as %s (%s).\n", server, id.User, id.Role)
	return nil
}

// newToken logs in with a password and makes an API token of this machine's own, so that the password is kept nowhere.
func (l *loginCommand) newToken(a *app, c *client.Client) (string, error) {
	email := l.Email
	in := bufio.NewReader(a.in)
	if email == "" {
		fmt.Fprint(a.errs, "E-mail: ")
		line, err := in.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("no e-mail address: %w (use --email)", err)
		}
		email = strings.TrimSpace(line)
	}
	password, err := l.password(a, in)
	if err != nil {
		return "", err
	}
	var login struct {
		AccessToken string `json:"accessToken"`
	}
	if _, err := c.Do(a.ctx, "POST", "/auth/login", map[string]string{"email": email, "password": password}, &login); err != nil {
		return "", err
	}
	host, _ := os.Hostname()
	c.Token = login.AccessToken
	var me struct {
		Role string `json:"role"`
	}
	if _, err := c.Do(a.ctx, "GET", "/auth/me", nil, &me); err != nil {
		return "", err
	}
	var made struct {
		Token string `json:"token"`
	}
	if _, err := c.Do(a.ctx, "POST", "/tokens", map[string]string{"name": "flowctl on " + host, "role": me.Role}, &made); err != nil {
		return "", err
	}
	return made.Token, nil
}

func (l *loginCommand) password(a *app, in *bufio.Reader) (string, error) {
	if l.PasswordFile != "" {
		b, err := os.ReadFile(l.PasswordFile)
		return strings.TrimRight(string(b), "\r\n"), err
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.errs, "Password: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.errs)
		return string(b), err
	}
	line, err := in.ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("no password: %w (give it on standard input, or with --password-file)", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

type logoutCommand struct{}

func (logoutCommand) Run(a *app) error {
	if err := client.Forget(); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "Logged out of this machine.")
	return nil
}

type whoamiCommand struct{}

func (whoamiCommand) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	id, err := whoami(a, c)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(id)
	}
	return a.table([]string{"SERVER", "USER", "ROLE"}, [][]string{{id.Server, id.User, id.Role}})
}

func whoami(a *app, c *client.Client) (identity, error) {
	var me struct {
		Email string `json:"email"`
		Role  string `json:"role"`
	}
	if _, err := c.Do(a.ctx, "GET", "/auth/me", nil, &me); err != nil {
		return identity{}, err
	}
	return identity{Server: c.Server, User: me.Email, Role: me.Role}, nil
}

type tokenCommand struct{}

func (tokenCommand) Run(a *app) error {
	c, err := a.api()
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, c.Token)
	return nil
}
