package nodes

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"flowplatform/services/internal/flow"
)

// sqlTypes knows PostgreSQL's built-in types; it is only read.
var sqlTypes = pgtype.NewMap()

// arrayOf gives the type of an array's elements.
func arrayOf(oid uint32) (uint32, bool) {
	t, ok := sqlTypes.TypeForOID(oid)
	if !ok {
		return 0, false
	}
	a, ok := t.Codec.(*pgtype.ArrayCodec)
	if !ok {
		return 0, false
	}
	return a.ElementType.OID, true
}

// sqlParam writes a value as PostgreSQL reads it.
func sqlParam(oid uint32, v any) ([]byte, error) {
	switch x := v.(type) {
	case nil:
		return nil, nil
	case string:
		if strings.Contains(x, "\x00") {
			return nil, errors.New("PostgreSQL's texts can't hold the character U+0000")
		}
		return []byte(x), nil
	case json.Number:
		return []byte(x), nil
	case []any:
		if element, ok := arrayOf(oid); ok {
			return sqlArray(nil, element, x)
		}
	case map[string]any:
		if b64, ok := x["base64"].(string); ok && oid == pgtype.ByteaOID {
			b, err := base64.StdEncoding.DecodeString(b64)
			if err != nil {
				return nil, errors.New("its base64 can't be read")
			}
			return []byte(`\x` + hex.EncodeToString(b)), nil
		}
	}
	return flow.EncodeValue(v)
}

func sqlArray(out []byte, element uint32, list []any) ([]byte, error) {
	out = append(out, '{')
	for i, e := range list {
		if i > 0 {
			out = append(out, ',')
		}
		if inner, ok := e.([]any); ok && element != pgtype.JSONOID && element != pgtype.JSONBOID {
			var err error
			if out, err = sqlArray(out, element, inner); err != nil {
				return nil, err
			}
			continue
		}
		b, err := sqlParam(element, e)
		switch {
		case err != nil:
			return nil, err
		case b == nil:
			out = append(out, "NULL"...)
		default:
			out = append(out, '"')
			out = append(out, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(string(b))...)
			out = append(out, '"')
		}
	}
	return append(out, '}'), nil
}

// sqlValue reads a value as PostgreSQL writes it.
func sqlValue(oid uint32, raw []byte) (any, error) {
	if raw == nil {
		return nil, nil
	}
	s := string(raw)
	switch oid {
	case pgtype.BoolOID:
		return s == "t", nil
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID:
		if v, err := flow.DecodeValue(raw); err == nil {
			return v, nil
		}
		return s, nil // NaN, Infinity
	case pgtype.JSONOID, pgtype.JSONBOID:
		return flow.DecodeValue(raw)
	case pgtype.ByteaOID:
		b, err := hex.DecodeString(strings.TrimPrefix(s, `\x`))
		return map[string]any{"base64": base64.StdEncoding.EncodeToString(b)}, err
	case pgtype.TimestamptzOID:
		if t, err := time.Parse("2006-01-02 15:04:05.999999999Z07", s); err == nil {
			return t.UTC().Format(time.RFC3339Nano), nil
		}
		return s, nil // infinity, years before 1 and after 9999
	case pgtype.TimestampOID:
		return strings.Replace(s, " ", "T", 1), nil
	}
	if element, ok := arrayOf(oid); ok {
		return sqlList(element, s)
	}
	if !utf8.ValidString(s) {
		return map[string]any{"base64": base64.StdEncoding.EncodeToString(raw)}, nil
	}
	return s, nil
}

// sqlList reads an array: {1,NULL,"a \"b\"",{2}}. Bounds other than from 1, [0:2]={…}, are not kept.
func sqlList(element uint32, s string) (any, error) {
	if i := strings.Index(s, "={"); strings.HasPrefix(s, "[") && i > 0 {
		s = s[i+1:]
	}
	p := arrayReader{element: element, s: s}
	v, err := p.list(0)
	if err == nil && p.i != len(s) {
		err = errors.New("more text after it")
	}
	if err != nil {
		return nil, fmt.Errorf("an array can't be read: %w", err)
	}
	return v, nil
}

type arrayReader struct {
	element uint32
	s       string
	i       int
}

func (p *arrayReader) list(depth int) ([]any, error) {
	if p.i >= len(p.s) || p.s[p.i] != '{' || depth > 6 {
		return nil, fmt.Errorf("no { at %d", p.i)
	}
	p.i++
	out := []any{}
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case '}':
			p.i++
			return out, nil
		case ',':
			p.i++
		case '{':
			inner, err := p.list(depth + 1)
			if err != nil {
				return nil, err
			}
			out = append(out, inner)
		default:
			v, err := p.one()
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
	}
	return nil, errors.New("it ends too early")
}

func (p *arrayReader) one() (any, error) {
	if p.s[p.i] != '"' {
		end := strings.IndexAny(p.s[p.i:], ",}")
		if end < 0 {
			return nil, errors.New("it ends too early")
		}
		word := p.s[p.i : p.i+end]
		p.i += end
		if word == "NULL" {
			return nil, nil
		}
		return sqlValue(p.element, []byte(word))
	}
	var b []byte
	for p.i++; p.i < len(p.s); p.i++ {
		switch p.s[p.i] {
		case '\\':
			if p.i++; p.i < len(p.s) {
				b = append(b, p.s[p.i])
			}
		case '"':
			p.i++
			return sqlValue(p.element, append([]byte{}, b...))
		default:
			b = append(b, p.s[p.i])
		}
	}
	return nil, errors.New("it ends too early")
}
