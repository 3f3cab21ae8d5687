package kaddht

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Bounds of talking to a peer.
const (
	idlePerPeer = 4              // streams kept for the next requests
	idleMax     = streamsOut / 2 // and of all peers
	answerMax   = 1 << 20        // bytes of an answer; a manifest and its neighbours are a third of it
	frameKept   = 64 << 10
	rpcMax      = 10 * time.Second // for requests that have no deadline of their own
	grace       = 50 * time.Millisecond
)

var errAnswerSize = fmt.Errorf("the answer is over %d bytes", answerMax)

// A sender sends requests to peers over streams that it keeps. kad-dht's own
// has one stream a peer and a lock around it: there, one slow request holds up
// all others to that peer.
type sender struct {
	host  host.Host
	proto []protocol.ID

	mu sync.Mutex
	// Fields below are protected by mu.
	idle   map[peer.ID][]*line
	kept   int
	closed bool

	// heard is told of every answer: somebody is there.
	heard func(peer.ID)
}

var _ pb.MessageSenderWithDisconnect = (*sender)(nil)

// A line is an open stream to a peer.
type line struct {
	s network.Stream
	r *bufio.Reader
}

func newSender(h host.Host, protos []protocol.ID) *sender {
	return &sender{host: h, proto: protos, idle: make(map[peer.ID][]*line), heard: func(peer.ID) {}}
}

// SendRequest implements pb.MessageSender.
func (s *sender) SendRequest(ctx context.Context, p peer.ID, m *pb.Message) (*pb.Message, error) {
	frame, err := frameOf(m)
	if err != nil {
		return nil, err
	}
	return s.ask(ctx, p, frame)
}

// SendMessage implements pb.MessageSender.
func (s *sender) SendMessage(ctx context.Context, p peer.ID, m *pb.Message) error {
	frame, err := frameOf(m)
	if err != nil {
		return err
	}
	_, err = s.exchange(ctx, p, frame, false, 0)
	return err
}

// ask sends a frame and returns the answer to it. When nobody waits any more it
// still reads for grace what is likely on its way: a stream that is reset has
// to be opened anew, which costs both sides more than the answer.
func (s *sender) ask(ctx context.Context, p peer.ID, frame []byte) (*pb.Message, error) {
	m, err := s.exchange(ctx, p, frame, true, grace)
	if err == nil {
		s.heard(p)
	}
	return m, err
}

// exchange tries once more on a new stream when the fault may be that a kept
// one was closed by the other side meanwhile.
func (s *sender) exchange(ctx context.Context, p peer.ID, frame []byte, wait bool, grace time.Duration) (*pb.Message, error) {
	if l := s.take(p); l != nil {
		if m, err := s.once(ctx, p, l, frame, wait, grace); err == nil || ctx.Err() != nil || errors.Is(err, errAnswerSize) {
			return m, err
		}
	}
	st, err := s.host.NewStream(ctx, p, s.proto...)
	if err != nil {
		return nil, err
	}
	return s.once(ctx, p, &line{s: st, r: newReader(st)}, frame, wait, grace)
}

// once sends one frame on l. The end of ctx, and of the grace after it, resets
// the stream, which tells the other side, too, that nobody waits any more.
func (s *sender) once(ctx context.Context, p peer.ID, l *line, frame []byte, wait bool, grace time.Duration) (m *pb.Message, err error) {
	due, ok := ctx.Deadline()
	if most := time.Now().Add(rpcMax); !ok || due.After(most) {
		due = most
	}
	_ = l.s.SetDeadline(due.Add(grace)) // a transport without deadlines still has the reset
	var over atomic.Bool                // whoever sets it has the stream: we, or the end of ctx
	reset := func() {
		if over.CompareAndSwap(false, true) {
			_ = l.s.Reset()
		}
	}
	stop := context.AfterFunc(ctx, func() {
		if grace > 0 {
			time.AfterFunc(grace, reset)
		} else {
			reset()
		}
	})
	defer stop()
	_, err = l.s.Write(frame)
	if err == nil && wait {
		m, err = l.read()
	}
	switch ours := over.CompareAndSwap(false, true); {
	case ours && err == nil:
		s.keep(p, l)
		return m, nil
	case ours:
		_ = l.s.Reset()
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, err
}

// read reads one message.
func (l *line) read() (*pb.Message, error) {
	n, err := binary.ReadUvarint(l.r)
	if err != nil {
		return nil, err
	}
	if n > answerMax {
		return nil, errAnswerSize
	}
	b := frames.Get().(*[]byte)
	defer putFrame(b)
	if uint64(cap(*b)) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	if _, err := io.ReadFull(l.r, *b); err != nil {
		return nil, err
	}
	m := new(pb.Message)
	return m, proto.Unmarshal(*b, m)
}

var frames = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func putFrame(b *[]byte) {
	if cap(*b) <= frameKept {
		frames.Put(b)
	}
}

// frameOf returns the bytes of m on the wire: its length, and it.
func frameOf(m *pb.Message) ([]byte, error) {
	n := proto.Size(m)
	b := protowire.AppendVarint(make([]byte, 0, n+binary.MaxVarintLen32), uint64(n))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
}

func (s *sender) take(p peer.ID) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	ls := s.idle[p]
	if len(ls) == 0 {
		return nil
	}
	l := ls[len(ls)-1]
	s.idle[p] = ls[:len(ls)-1]
	s.kept--
	return l
}

func (s *sender) keep(p peer.ID, l *line) {
	s.mu.Lock()
	ls := s.idle[p]
	full := s.closed || len(ls) >= idlePerPeer || s.kept >= idleMax || l.s.Conn().IsClosed()
	if !full {
		s.idle[p] = append(ls, l)
		s.kept++
	}
	s.mu.Unlock()
	if full {
		_ = l.s.Close()
	}
}

// OnDisconnect implements pb.MessageSenderWithDisconnect.
func (s *sender) OnDisconnect(_ context.Context, p peer.ID) {
	s.mu.Lock()
	ls := s.idle[p]
	delete(s.idle, p)
	s.kept -= len(ls)
	s.mu.Unlock()
	for _, l := range ls {
		_ = l.s.Reset()
	}
}

// close lets go of every stream.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	all := s.idle
	s.idle = nil
	s.kept = 0
	s.mu.Unlock()
	for _, ls := range all {
		for _, l := range ls {
			_ = l.s.Reset()
		}
	}
}

// streams returns how many are kept.
func (s *sender) streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 2048) }
