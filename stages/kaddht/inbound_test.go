package kaddht

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"svcindex/index"
)

// A trickle is an inbound stream whose bytes a test decides, and a resource
// manager that has so much memory.
type trickle struct {
	network.Stream
	in    io.Reader
	scope purse
}

func (s *trickle) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *trickle) Scope() network.StreamScope { return &s.scope }

type purse struct {
	network.NullScope
	has, taken int
}

func (s *purse) ReserveMemory(n int, _ uint8) error {
	if s.taken+n > s.has {
		return network.ErrResourceLimitExceeded
	}
	s.taken += n
	return nil
}

func (s *purse) ReleaseMemory(n int) { s.taken -= n }

func framed(sizes ...int) (b []byte) {
	for _, n := range sizes {
		b = append(binary.AppendUvarint(b, uint64(n)), bytes.Repeat([]byte{0x80}, n)...)
	}
	return b
}

func TestARequestIsChargedForWhileItIsRead(t *testing.T) {
	for _, tt := range []struct {
		why  string
		raw  []byte
		has  int
		read int // bytes that come through
		err  error
	}{
		{"two of them, one after the other", framed(300, 200), 300, 2 + 300 + 2 + 200, nil},
		{"an empty one between", framed(1, 0, 1), 1, 5, nil},
		{"as long as may be", framed(requestMax), requestMax, 3 + requestMax, nil},
		{"a byte over it", framed(requestMax + 1), 8 << 20, 2, errRequestSize},
		{"what kad-dht would take", framed(4 << 20), 8 << 20, 3, errRequestSize},
		{"a length without end", bytes.Repeat([]byte{0x80}, 20), 8 << 20, 5, errRequestSize},
		{"more than there is memory for", framed(100, 300), 200, 1 + 100 + 1, network.ErrResourceLimitExceeded},
	} {
		for _, in := range []io.Reader{bytes.NewReader(tt.raw), iotest.OneByteReader(bytes.NewReader(tt.raw))} {
			st := &trickle{in: in, scope: purse{has: tt.has}}
			got, err := io.ReadAll(&intake{Stream: st})
			if len(got) != tt.read || !errors.Is(err, tt.err) || !bytes.Equal(got, tt.raw[:len(got)]) {
				t.Errorf("%s: %d bytes came through and %v, want %d and %v", tt.why, len(got), err, tt.read, tt.err)
			}
			if st.scope.taken != 0 && tt.err == nil {
				t.Errorf("%s: %d bytes are still charged", tt.why, st.scope.taken)
			}
		}
	}
}

// dialKad opens a stream to a node, as anybody may.
func dialKad(t *testing.T, from, to *Node) network.Stream {
	t.Helper()
	s, err := from.host.NewStream(t.Context(), to.self, protocol.ID(testPrefix+"/kad/1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRequestsThatAreTooLongEndTheirStream(t *testing.T) {
	d := openDevnet(t, 2)
	from, to := d.nodes[0].Node, d.nodes[1].Node
	s := dialKad(t, from, to)
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = s.Write(binary.AppendUvarint(nil, 4<<20))
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("who announces 4 MiB is heard out: %v", err)
	}
	_ = s.Reset()

	body := bytes.Repeat([]byte("m"), ManifestMax)
	c := index.Sum(body)
	key := manifestKey(&c)
	m := pb.NewMessage(pb.Message_PUT_VALUE, []byte(key), 0)
	m.Record = record.MakePutRecord(key, body)
	frame, _ := frameOf(m)
	if a, err := from.sender.exchange(t.Context(), to.self, frame, true, 0); err != nil || len(a.GetRecord().GetValue()) != len(body) {
		t.Errorf("a manifest as large as may be: %v", err)
	}
	if got := to.vault.value(key); !bytes.Equal(got, body) {
		t.Errorf("%d bytes of it are kept", len(got))
	}
}

func TestStreamsOfOnePeerAreBounded(t *testing.T) {
	d := openDevnet(t, 2)
	from, to := d.nodes[0].Node, d.nodes[1].Node
	half := append(binary.AppendUvarint(nil, requestMax), 0)
	before := runtime.NumGoroutine()
	var open []network.Stream
	for range inPeer + 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		s, err := from.host.NewStream(ctx, to.self, protocol.ID(testPrefix+"/kad/1.0.0"))
		cancel()
		if err != nil {
			continue
		}
		_, _ = s.Write(half) // and never the rest
		open = append(open, s)
	}
	in := 0
	for _, c := range to.host.Network().ConnsToPeer(from.self) {
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == network.DirInbound {
				in++
			}
		}
	}
	if in > inPeer || len(open) == 0 {
		t.Errorf("%d streams of one peer are open, at most %d", in, inPeer)
	}
	for _, s := range open {
		_ = s.Reset()
	}
	settle(t, "what it opened is gone", func() bool { return runtime.NumGoroutine() <= before+20 })
}
