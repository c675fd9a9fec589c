package report

import (
	"bytes"
	_ "embed" // the page
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Write writes report.json, report.xml and report.html into a directory.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	page, err := r.page()
	if err != nil {
		return err
	}
	junit, err := r.junit()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "report.json"), text, 0o644),
		os.WriteFile(filepath.Join(dir, "report.xml"), junit, 0o644),
		os.WriteFile(filepath.Join(dir, "report.html"), page, 0o644),
	)
}

//go:embed page.html
var pageText string

func (r *Report) page() ([]byte, error) {
	funcs := template.FuncMap{
		"seconds": func(s float64) string { return (time.Duration(s*10) * time.Second / 10).String() },
		"share": func(part, whole int) string {
			if whole == 0 {
				return "0"
			}
			return fmt.Sprintf("%.2f", 100*float64(part)/float64(whole))
		},
		"of":    func(part, most float64) string { return fmt.Sprintf("%.1f", 100*part/max(most, 0.1)) },
		"first": func(s string) string { line, _, _ := strings.Cut(s, "\n"); return cut(line, 160) },
	}
	t, err := template.New("page").Funcs(funcs).Parse(pageText)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = t.Execute(&page, map[string]any{
		"Report": r, "Rows": r.Rows(), "Slowest": r.Slowest(20), "Failed": r.With(Failed), "Flaky": r.With(Flaky),
		"Skipped": r.With(Skipped), "NotRun": r.With(NotRun), "Passed": r.With(Passed), "Good": r.Good(),
	})
	return page.Bytes(), err
}

// The elements of JUnit's XML, as most tools read it.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     float64     `xml:"time,attr"`
		Started  string      `xml:"timestamp,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    float64       `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
		Flaky   *junitMessage `xml:"flakyFailure"`
		Output  string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *Report) junit() ([]byte, error) {
	var suites junitSuites
	for _, row := range r.Rows() {
		if row.Area == "all" {
			continue
		}
		s := junitSuite{
			Name: row.Area, Tests: row.Specs, Failures: row.Failed, Skipped: row.Skipped + row.Left, Time: row.Seconds,
			Started: r.Started.UTC().Format(time.RFC3339),
		}
		for _, o := range r.Specs {
			if o.Area == row.Area {
				s.Cases = append(s.Cases, junit(o))
			}
		}
		suites.Suites = append(suites.Suites, s)
	}
	text, err := xml.MarshalIndent(suites, "", " ")
	return append([]byte(xml.Header), text...), err
}

func junit(o Outcome) junitCase {
	first, _, _ := strings.Cut(o.Failure, "\n")
	c := junitCase{Name: o.Name, Class: o.Area, Time: o.Seconds}
	m := &junitMessage{Message: first, Text: o.Failure + "\n" + o.Where}
	switch o.State {
	case Failed:
		c.Failure, c.Output = m, o.Events+o.Log
	case Flaky:
		c.Flaky = m
	case Skipped:
		c.Skipped = m
	case NotRun:
		c.Skipped = &junitMessage{Message: NotRun}
	}
	return c
}
