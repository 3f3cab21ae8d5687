package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"time"
)

func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// rawGet asks for a key and returns the whole answer as it came.
func rawGet(addr, key string) ([]byte, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /resolve/%s HTTP/1.1\r\nHost: %s\r\n\r\n", key, addr); err != nil {
		return nil, err
	}
	var raw bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &raw)), nil)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d, want 200", key, resp.StatusCode)
	}
	return raw.Bytes(), nil
}

// A parsed answer: its fields as they were written, and its body.
type parsed struct {
	head map[string]string
	body string
}

func parse(raw []byte) (p parsed, err error) {
	head, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		return p, fmt.Errorf("no end of the head in %q", raw)
	}
	p = parsed{map[string]string{}, string(body)}
	for i, line := range bytes.Split(head, []byte("\r\n")) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if i == 0 {
			continue
		}
		if !ok {
			return p, fmt.Errorf("no field: %q", line)
		}
		p.head[textproto.CanonicalMIMEHeaderKey(string(name))] = string(bytes.TrimSpace(value))
	}
	return p, nil
}

// Fields that differ from one answer to the next.
var changing = []string{"Date", "X-Corr-Id", "Age", "X-Index-Source"}

// differs says in what an answer differs from ours, "" for nothing.
func differs(ours, theirs parsed) string {
	if ours.body != theirs.body {
		return fmt.Sprintf("its body is %q, ours %q", theirs.body, ours.body)
	}
	mine, other := slices.Sorted(maps.Keys(ours.head)), slices.Sorted(maps.Keys(theirs.head))
	if !slices.Equal(mine, other) {
		return fmt.Sprintf("its fields are %v, ours %v", other, mine)
	}
	for _, name := range mine {
		if !slices.Contains(changing, name) && ours.head[name] != theirs.head[name] {
			return fmt.Sprintf("its %s is %q, ours %q", name, theirs.head[name], ours.head[name])
		}
	}
	return ""
}

// same refuses a server that says something else than ours. nginx and the
// floor must say as many bytes; the others the same ones.
func (b *bench) same(s *server) error {
	raw, err := rawGet(s.addr, b.keys[0])
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", s.name, err, s.said())
	}
	if s.name == "nginx" || s.name == "floor" {
		if len(raw) != len(b.constant) {
			return fmt.Errorf("%s answers with %d bytes, ours with %d", s.name, len(raw), len(b.constant))
		}
		return nil
	}
	theirs, err := parse(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	ours, err := parse(b.constant)
	if err != nil {
		return err
	}
	if d := differs(ours, theirs); d != "" {
		return fmt.Errorf("%s does other work than ours: %s", s.name, d)
	}
	return nil
}

// learn asks our server for all keys, and writes what the peers are to answer.
func (b *bench) learn() error {
	s, err := b.kinds()["ours"].start(b, apart)
	if err != nil {
		return err
	}
	defer b.stop(s)
	type answer struct{ Key, ETag, Body string }
	var all []answer
	for range 2 { // the second time from the cache
		all = all[:0]
		for i, key := range b.keys {
			raw, err := rawGet(s.addr, key)
			if err != nil {
				return err
			}
			p, err := parse(raw)
			if err != nil {
				return err
			}
			if i == 0 {
				b.constant = raw
			}
			all = append(all, answer{key, p.head["Etag"], p.body})
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.answers, text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(b.reply, b.constant, 0o644)
}
