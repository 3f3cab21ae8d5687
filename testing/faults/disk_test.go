package faults

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFaultDiskFull fills the disk under a running server: first down to what
// is kept free, then to the last byte, which the store meets in a write.
func TestFaultDiskFull(t *testing.T) {
	t.Run("down to min_free", func(t *testing.T) { diskFull(t, 512<<10) })
	t.Run("to the last byte", func(t *testing.T) { diskFull(t, 0) })
}

// diskFull fills the disk until left bytes are free.
func diskFull(t *testing.T, left int64) {
	disk := smallDisk(t, "24m")
	dir := filepath.Join(disk, "data")
	s := start(t, options{dir: dir, set: []string{"db.min_free=1MiB"}})
	names := s.publish("disk/", 100)
	l := s.dial(dialing{})
	acked := 0
	put := func() answer {
		a, err := l.ask(s.putManifest(bytesOf(uint64(acked))))
		if err != nil {
			t.Fatal(err)
		}
		if a.status == 201 {
			acked++
		}
		return a
	}
	for acked < 20 {
		put()
	}

	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast, left)
	var refused answer
	s.await("refusal of a write", func() bool {
		refused = put()
		return refused.status/100 != 2
	})
	t.Logf("refused with %v (Retry-After %q)", refused, refused.head["retry-after"])
	if refused.status != 507 || refused.field("code") != "insufficient_storage" || refused.field("message") == "" {
		t.Errorf("a write to a full disk was answered %v, want 507 insufficient_storage and what to do", refused)
	}
	if refused.retryAfter() < 1 {
		t.Error("the 507 has no Retry-After")
	}
	began := time.Now()
	s.await("loss of readiness", func() bool { put(); return s.readyz() == 503 })
	_, body := s.adminGet("/readyz")
	t.Logf("/readyz after %v: %s", time.Since(began), body)
	if (answer{body: body}).field("degraded") != "true" {
		t.Errorf("/readyz is not degraded: %s", body)
	}
	again := 0
	for _, name := range names { // none of them in memory
		again += read(t, l, resolve(name))
	}
	for i := range acked {
		again += read(t, l, get("/manifests/"+cidOf(bytesOf(uint64(i)))))
	}
	t.Logf("%d reads while the disk was full, %d of them only after a 503", len(names)+acked, again)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	freed := time.Now()
	s.await("healing", func() bool { return put().status == 201 && s.readyz() == 200 })
	t.Logf("healed %v after there was room again", time.Since(freed))
	for i := range acked {
		if a := l.want(t, get("/manifests/"+cidOf(bytesOf(uint64(i)))), 200); string(a.body) != bytesOf(uint64(i)) {
			t.Errorf("manifest %d came back with other bytes", i)
		}
	}
	s.stop()
	verifySound(t, dir)
}

// read wants a 200. While the store tries to open again it may say 503 for a
// moment; read returns 1 if it did.
func read(t *testing.T, l *line, request string) (again int) {
	t.Helper()
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if a := l.want(t, request, 200, 503); a.status == 200 {
			return again
		}
		again = 1
	}
	t.Errorf("%.80q: 503 for seconds, want reads to go on", request)
	return again
}

// smallDisk mounts a small file system in memory for the length of the test.
func smallDisk(t *testing.T, bytes string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+bytes); err != nil {
		t.Skipf("mounting a small disk takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// fill writes a file until the disk has no room left, and then gives some back.
func fill(t *testing.T, path string, left int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4<<10)
	size := int64(0)
	for {
		n, err := f.Write(page)
		size += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatalf("filling the disk: %v", err)
		}
	}
	if err := f.Truncate(size - left); err != nil {
		t.Fatal(err)
	}
}
