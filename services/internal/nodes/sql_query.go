package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"flowplatform/services/internal/credential"
	"flowplatform/services/internal/flow"
	"flowplatform/services/internal/node"
)

const (
	sqlConnections = 4 // to one server as one user, from one worker
	defaultRows    = 1000
	maxRows        = 10_000
	maxParams      = 1000
)

func sqlQuery(o HTTPOptions) node.Type {
	return node.Type{
		Spec: node.Spec{
			Type: "sql.query", Version: 1, Kind: flow.KindEffect, Category: "integration", Timeout: 30 * time.Second, Literal: []string{"/query"}, Credentials: []string{credential.Postgres},
			Title:       "SQL query",
			Description: "Runs one SQL statement on a PostgreSQL server. Values go in as parameters and never become part of the statement. Whole numbers and numeric come out exactly, times in RFC 3339 (UTC), bytea as {\"base64\": …}, JSON and arrays as what they are, other types as PostgreSQL writes them.",
			Config: `{"type": "object", "required": ["credential", "query"], "additionalProperties": false,
				"properties": {
					"credential": {"type": "string", "minLength": 1, "maxLength": 100, "title": "Credential", "description": "name or id of a credential of type postgres"},
					"query": {"type": "string", "minLength": 1, "maxLength": 65536, "title": "Query", "format": "sql", "description": "one statement, as it is: {{ }} is no expression here. Values stand as $1, $2, …"},
					"params": {"type": "array", "maxItems": 1000, "title": "Parameters", "description": "values of $1, $2, … in this order. A list goes to an array parameter as an array, else as JSON; an object goes as JSON; a text as it is"},
					"maxRows": {"type": "integer", "minimum": 1, "maximum": 10000, "default": 1000, "title": "Most rows", "description": "more rows than this fail the step; what the statement changed stays changed"}}}`,
			Output: `{"type": "object", "required": ["rows", "rowCount"], "properties": {
				"rows": {"type": "array", "items": {"type": "object"}, "description": "an object by column for each row; of columns with one name, the last stays"},
				"rowCount": {"type": "integer", "description": "rows read or changed, as PostgreSQL counts them"}}}`,
			Examples: []node.Example{
				{Title: "Read", Config: map[string]any{"credential": "shop", "query": "SELECT id, total FROM orders WHERE customer = $1 AND created_at > $2", "params": []any{"{{ input.customer }}", "2026-01-01T00:00:00Z"}}, Input: map[string]any{"customer": 7}},
				{Title: "Write once", Config: map[string]any{"credential": "shop", "query": "INSERT INTO payments (key, amount) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING", "params": []any{"{{ execution.id }}", "{{ input.amount }}"}}, Input: map[string]any{"amount": 12.5}},
			},
		},
		Executor: &sqlExecutor{options: o, pools: newPools(func(p *pgxpool.Pool) { p.Close() })},
	}
}

type sqlExecutor struct {
	options HTTPOptions
	pools   *pools[*pgxpool.Pool]
}

func (x *sqlExecutor) Execute(ctx context.Context, c node.Call) (node.Result, error) {
	query, problem := text(c.Config, "query")
	if problem != nil {
		return node.Result{}, problem
	}
	params, limit := []any{}, defaultRows
	if c.Config["params"] != nil {
		if params, problem = listOf(c.Config, "params"); problem != nil {
			return node.Result{}, problem
		}
	}
	switch n := c.Config["maxRows"].(type) {
	case nil:
	case int:
		limit = n
	default:
		limit = 0
	}
	if limit < 1 || limit > maxRows || len(params) > maxParams {
		return node.Result{}, &node.Error{Code: "config", Message: fmt.Sprintf("maxRows must be a whole number from 1 to %d, and there may be %d params", maxRows, maxParams)}
	}
	opened, err := open(ctx, c, credential.Postgres)
	if err != nil {
		return node.Result{}, err
	}
	url := credential.PostgresURL(opened.Fields)
	pool, release, ok, err := x.pools.take(url, func() (*pgxpool.Pool, error) { return x.pool(url) })
	switch {
	case err != nil: // its text may hold the URL
		return node.Result{}, &node.Error{Code: "config", Message: "the credential " + opened.Name + " can't be used: its settings make no PostgreSQL address"}
	case !ok:
		return node.Result{}, tooManyServers
	}
	defer release()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return node.Result{}, sqlFailed(ctx, err)
	}
	defer conn.Release()
	pg := conn.Conn().PgConn()
	most := c.Limits.MaxValueBytes
	if most <= 0 {
		most = flow.MaxValueBytes
	}
	out, err := sqlRun(ctx, pg, query, params, limit, most)
	if err != nil {
		var known *node.Error
		if errors.As(err, &known) { // what is left of the answer isn't read: the connection goes
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = pg.Close(closing)
			return node.Result{}, known
		}
		return node.Result{}, sqlFailed(ctx, err)
	}
	return node.Result{Output: out}, nil
}

// tooManyServers says that the worker holds connections to as many servers as it may.
var tooManyServers = &node.Error{Code: "too-many-connections", Retryable: true, Message: fmt.Sprintf("this worker talks to %d servers at once already: try later, or add workers", maxPools)}

// open opens the credential that the configuration names.
func open(ctx context.Context, c node.Call, typ string) (node.Credential, error) {
	if c.Credential == nil {
		return node.Credential{}, &node.Error{Code: "credential-unavailable", Message: "credentials can't be opened here"}
	}
	return c.Credential(ctx, typ)
}

func (x *sqlExecutor) pool(url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns, config.MinConns, config.MaxConnIdleTime, config.MaxConnLifetime, config.HealthCheckPeriod = sqlConnections, 0, poolIdle, time.Hour, poolIdle
	config.ConnConfig.ConnectTimeout = 10 * time.Second
	config.ConnConfig.DialFunc = x.options.DialContext
	config.ConnConfig.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // DialContext looks it up, and at what it finds
	parameters := config.ConnConfig.RuntimeParams
	parameters["DateStyle"], parameters["TimeZone"], parameters["IntervalStyle"], parameters["bytea_output"], parameters["client_encoding"] = "ISO", "UTC", "iso_8601", "hex", "UTF8"
	if parameters["application_name"] == "" {
		parameters["application_name"] = "flow-platform"
	}
	return pgxpool.NewWithConfig(context.Background(), config)
}

// sqlRun runs one statement, everything in PostgreSQL's text format: nothing is rounded on the way.
func sqlRun(ctx context.Context, pg *pgconn.PgConn, query string, params []any, limit, most int) (any, error) {
	prepared, err := pg.Prepare(ctx, "", query, nil)
	if err != nil {
		return nil, err
	}
	if len(prepared.ParamOIDs) != len(params) {
		return nil, &node.Error{Code: "config", Message: fmt.Sprintf("the query has %d parameters ($1, $2, …), and params gives %d", len(prepared.ParamOIDs), len(params))}
	}
	values := make([][]byte, len(params))
	for i, p := range params {
		if values[i], err = sqlParam(prepared.ParamOIDs[i], p); err != nil {
			return nil, &node.Error{Code: "config", Message: fmt.Sprintf("params[%d]: %v", i, err)}
		}
	}
	reader := pg.ExecPrepared(ctx, "", values, nil, nil)
	rows := []any{}
	left := most
	for reader.NextRow() {
		if len(rows) == limit {
			return nil, &node.Error{Code: "sql-too-many-rows", Message: fmt.Sprintf("the query gives more than %d rows: use LIMIT, select pages, or raise maxRows (%d at most)", limit, maxRows)}
		}
		row := make(map[string]any, len(prepared.Fields))
		for i, raw := range reader.Values() {
			field := prepared.Fields[i]
			if left -= len(raw) + len(field.Name) + 4; left < 0 {
				return nil, &node.Error{Code: "sql-too-large", Message: fmt.Sprintf("the rows have more than %d KiB: select fewer columns or rows", most>>10)}
			}
			if row[field.Name], err = sqlValue(field.DataTypeOID, raw); err != nil {
				return nil, &node.Error{Code: "sql-value", Message: fmt.Sprintf("column %s: %v", field.Name, err)}
			}
		}
		rows = append(rows, row)
	}
	tag, err := reader.Close()
	if err != nil {
		return nil, err
	}
	return map[string]any{"rows": rows, "rowCount": int(tag.RowsAffected())}, nil
}

// SQLSTATEs of failures that another try may not meet: serialization and deadlock, locks, a server that starts or stops, no room for a connection.
var sqlRetryable = []string{"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "08"}

func sqlFailed(ctx context.Context, err error) error {
	if err := ended(ctx, err); err != nil {
		return err
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		e := &node.Error{Code: "sql", Message: fmt.Sprintf("PostgreSQL: %s (SQLSTATE %s)", pe.Message, pe.Code), Data: map[string]any{"sqlstate": pe.Code}}
		data := e.Data.(map[string]any)
		for name, v := range map[string]string{"detail": pe.Detail, "hint": pe.Hint, "table": pe.TableName, "column": pe.ColumnName, "constraint": pe.ConstraintName} {
			if v != "" {
				data[name] = v
			}
		}
		if pe.Position > 0 {
			data["position"] = int(pe.Position)
		}
		for _, state := range sqlRetryable {
			e.Retryable = e.Retryable || strings.HasPrefix(pe.Code, state)
		}
		return e
	}
	return connectFailed("sql-connect", "PostgreSQL", err)
}

// ended gives ctx's error if that is why a call failed. A connection's deadline, which the libraries take from ctx, may pass a moment before ctx itself ends.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if at, ok := ctx.Deadline(); ok && time.Until(at) < 100*time.Millisecond {
			return context.DeadlineExceeded
		}
	}
	return ctx.Err()
}

// connectFailed is for servers that couldn't be reached, or went away. What the libraries say of it may hold addresses, never passwords.
func connectFailed(code, server string, err error) *node.Error {
	if why, is := Refused(err); is {
		return &node.Error{Code: "refused-address", Message: why}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return &node.Error{Code: code, Retryable: true, Message: fmt.Sprintf("the name %s can't be found (%s): look at the credential and at the name server", dns.Name, dns.Err)}
	}
	return &node.Error{Code: code, Retryable: true, Message: fmt.Sprintf("%s can't be reached, or the connection broke: %v", server, err)}
}
