package queue

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
)

func TestAFullQueueRefusesAndKeepsOrder(t *testing.T) {
	q := New[int](3)
	for i := range 3 {
		if !q.Push(i) {
			t.Fatalf("Push(%d) refused with room left", i)
		}
	}
	if q.Push(3) {
		t.Error("Push took a fourth item into a queue of three")
	}
	dst := make([]int, 2)
	if n := q.PopUpTo(dst); n != 2 || !slices.Equal(dst, []int{0, 1}) {
		t.Errorf("PopUpTo = %d %v, want the two oldest", n, dst)
	}
	if n := q.PushAll([]int{3, 4, 5}); n != 2 {
		t.Errorf("PushAll took %d, want the 2 there was room for", n)
	}
	rest := make([]int, 8)
	if n := q.PopUpTo(rest); !slices.Equal(rest[:n], []int{2, 3, 4}) {
		t.Errorf("left in the queue: %v, want [2 3 4]", rest[:n])
	}
}

func TestAClosedQueueGivesWhatItHasAndTakesNoMore(t *testing.T) {
	q := New[int](2)
	q.Push(1)
	q.Close()
	if q.Push(2) || q.PushAll([]int{2}) != 0 {
		t.Error("a closed queue took an item")
	}
	if dst := make([]int, 1); q.PopUpTo(dst) != 1 || dst[0] != 1 {
		t.Error("a closed queue lost the item it had")
	}
}

func TestAResizedQueueKeepsWhatWaits(t *testing.T) {
	q := New[int](4)
	buf := make([]int, 8)
	q.PushAll([]int{0, 1, 2})
	q.PopUpTo(buf[:2])
	q.PushAll([]int{3, 4, 5}) // the ring is full, and wraps
	q.Resize(2)
	if q.Cap() != 2 || q.Len() != 4 || q.Push(6) {
		t.Errorf("Cap %d, Len %d, and it took another: want 2, the 4 that waited, and none", q.Cap(), q.Len())
	}
	if n := q.PopUpTo(buf[:3]); !slices.Equal(buf[:n], []int{2, 3, 4}) {
		t.Errorf("first out: %v, want [2 3 4]", buf[:n])
	}
	if n := q.PushAll([]int{6, 7}); n != 1 {
		t.Errorf("took %d, want the one there is room for", n)
	}
	q.Resize(5)
	if n := q.PushAll([]int{7, 8, 9, 10}); n != 3 {
		t.Errorf("took %d after growing, want 3", n)
	}
	if n := q.PopUpTo(buf); !slices.Equal(buf[:n], []int{5, 6, 7, 8, 9}) {
		t.Errorf("then: %v, want [5 6 7 8 9]", buf[:n])
	}
}

func TestOldestSeesTheHead(t *testing.T) {
	q := New[string](2)
	if q.Oldest(func(string) { t.Error("looked into an empty queue") }) {
		t.Error("an empty queue has an oldest item")
	}
	q.PushAll([]string{"a", "b"})
	q.Oldest(func(s string) {
		if s != "a" {
			t.Errorf("oldest is %q, want a", s)
		}
	})
}

func TestManyProducersAndConsumersLoseNothing(t *testing.T) {
	const producers, each = 4, 20_000
	q := New[int](64)
	var pushing, popping sync.WaitGroup
	for p := range producers {
		pushing.Go(func() {
			for i := range each {
				for !q.Push(p*each + i) {
					runtime.Gosched()
				}
			}
		})
	}
	var mu sync.Mutex
	seen := make(map[int]bool)
	last := make([]int, producers)
	for i := range last {
		last[i] = -1
	}
	done := make(chan struct{})
	popping.Go(func() { // one consumer, so that order can be judged
		buf := make([]int, 7)
		for {
			n := q.PopUpTo(buf)
			mu.Lock()
			for _, v := range buf[:n] {
				if p := v / each; v%each <= last[p] {
					t.Errorf("item %d of producer %d came after item %d", v%each, p, last[p])
				} else {
					last[p] = v % each
				}
				seen[v] = true
			}
			mu.Unlock()
			if n == 0 {
				select {
				case <-done:
					return
				default:
					runtime.Gosched()
				}
			}
		}
	})
	pushing.Wait()
	for q.Len() > 0 {
		runtime.Gosched()
	}
	close(done)
	popping.Wait()
	if len(seen) != producers*each {
		t.Errorf("%d items came out, want %d", len(seen), producers*each)
	}
}

func TestLaneKeepsOrderAcrossGoroutines(t *testing.T) {
	const total = 200_000
	l := NewLane[int](100)
	if len(l.ring) != 128 {
		t.Errorf("a lane for 100 has room for %d, want the next power of two", len(l.ring))
	}
	go func() {
		next := 0
		for next < total {
			var vs []int
			for i := next; i < min(next+9, total); i++ {
				vs = append(vs, i)
			}
			n := l.PushAll(vs)
			next += n
			if n == 0 {
				runtime.Gosched()
			}
		}
	}()
	buf := make([]int, 16)
	for want := 0; want < total; {
		n := l.PopUpTo(buf)
		for _, v := range buf[:n] {
			if v != want {
				t.Fatalf("got %d, want %d", v, want)
			}
			want++
		}
		if n == 0 {
			runtime.Gosched()
		}
	}
	if l.Len() != 0 {
		t.Errorf("%d items are left", l.Len())
	}
}

func TestHopsDoNotAllocate(t *testing.T) {
	q, l := New[*int](8), NewLane[*int](8)
	v, buf := []*int{new(int)}, make([]*int, 8)
	if n := testing.AllocsPerRun(100, func() { q.Push(v[0]); q.PopUpTo(buf) }); n != 0 {
		t.Errorf("a hop through a Queue allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { l.PushAll(v); l.PopUpTo(buf) }); n != 0 {
		t.Errorf("a hop through a Lane allocates %v times", n)
	}
}

func ExampleQueue() {
	q := New[string](2)
	fmt.Println(q.Push("a"), q.Push("b"), q.Push("c"))
	batch := make([]string, 8)
	n := q.PopUpTo(batch)
	fmt.Println(batch[:n])
	// Output:
	// true true false
	// [a b]
}

func ExampleLane() {
	l := NewLane[string](2)
	fmt.Println(l.PushAll([]string{"a", "b", "c"}))
	batch := make([]string, 1)
	fmt.Println(l.PopUpTo(batch), batch, l.Len())
	// Output:
	// 2
	// 1 [a] 1
}

func BenchmarkQueueHop(b *testing.B) {
	b.ReportAllocs()
	q, buf := New[*int](64), make([]*int, 64)
	v := new(int)
	for b.Loop() {
		q.Push(v)
		q.PopUpTo(buf)
	}
}

func BenchmarkLaneHop(b *testing.B) {
	b.ReportAllocs()
	l, buf := NewLane[*int](64), make([]*int, 64)
	v := []*int{new(int)}
	for b.Loop() {
		l.PushAll(v)
		l.PopUpTo(buf)
	}
}

func BenchmarkLaneHopBatch16(b *testing.B) {
	b.ReportAllocs()
	l, buf := NewLane[*int](64), make([]*int, 64)
	v := make([]*int, 16)
	for b.Loop() {
		l.PushAll(v)
		l.PopUpTo(buf)
	}
}
