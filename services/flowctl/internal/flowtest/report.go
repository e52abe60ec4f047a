package flowtest

import (
	"encoding/xml"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Text shows a result to people: a line, and one for each problem.
func (r Result) Text() string {
	word := "ok  "
	if !r.Passed {
		word = "FAIL"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s: %s (%.2f s)\n", word, strings.TrimSuffix(filepath.Base(r.File), Suffix), r.Case, r.Seconds)
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "      %s\n", strings.ReplaceAll(p, "\n", "\n      "))
	}
	return b.String()
}

// Failed counts.
func Failed(all []Result) (n int) {
	for _, r := range all {
		if !r.Passed {
			n++
		}
	}
	return n
}

// JUnit is the form that CI servers read.
func JUnit(w io.Writer, all []Result) error {
	type failure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Time    float64  `xml:"time,attr"`
		Failure *failure `xml:"failure,omitempty"`
	}
	type suite struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []testcase `xml:"testcase"`
	}
	s := suite{Name: "flows", Tests: len(all), Failures: Failed(all)}
	for _, r := range all {
		c := testcase{Name: r.Case, Class: r.File, Time: r.Seconds}
		if !r.Passed {
			c.Failure = &failure{Message: r.Problems[0], Text: strings.Join(r.Problems, "\n")}
		}
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
