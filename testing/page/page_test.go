// Package page looks at the live page with a real browser: Chromium, headless,
// against the real server under the real load generator. It is a module of its
// own, so that the product does not carry a browser's driver.
package page

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const patience = 60 * time.Second

// binary is the server to look at, as the Makefile built it.
func binary(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/svc-index")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run make page, which builds it first", err)
	}
	return path
}

// serve starts a server on free ports and returns where it listens.
func serve(t *testing.T, bin string) (public, admin, data string) {
	t.Helper()
	data = t.TempDir()
	cmd := exec.Command(bin, "serve", "--profile", "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	line, _ := bufio.NewReader(out).ReadString('\n')
	if n, _ := fmt.Sscanf(line, "svc-index listens on http://%s admin on http://%s", &public, &admin); n != 2 {
		t.Fatalf("the server said %q instead of where it listens", line)
	}
	return strings.TrimSuffix(public, ","), admin, data
}

// load asks the server for a while, in the background.
func load(t *testing.T, bin, public, data string) {
	t.Helper()
	args := []string{"loadgen", "--server", "http://" + public, "--data", data, "--prepare", "2000", "--keys", "2000", "--writes", "0.01", "--absent", "0.05", "--rate", "3000", "--duration", "60s"}
	cmd := exec.Command(bin, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the load generator's last words:\n%s", said.String())
		}
	})
}

// browse opens a browser window of the given size.
func browse(t *testing.T, width, height int64) context.Context {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*patience)
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx, emulation.SetDeviceMetricsOverride(width, height, 1, width < 600)); err != nil {
		t.Fatalf("starting Chromium: %v; make page installs it", err)
	}
	return ctx
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// value evaluates an expression in the page.
func value[T any](t *testing.T, ctx context.Context, js string) (v T) {
	t.Helper()
	do(t, ctx, chromedp.Evaluate(js, &v))
	return v
}

// await waits until an expression in the page is true.
func await(t *testing.T, ctx context.Context, what, js string) {
	t.Helper()
	for end := time.Now().Add(patience); !value[bool](t, ctx, js); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			shoot(t, ctx, "failed.png")
			t.Fatalf("the page never showed %s: !(%s)", what, js)
		}
	}
}

// shoot keeps a picture for people to look at, beside the test.
func shoot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	var png []byte
	do(t, ctx, chromedp.FullScreenshot(&png, 100))
	if len(png) < 10<<10 {
		t.Errorf("%s: a picture of %d bytes shows nothing", name, len(png))
	}
	if dir := os.Getenv("PAGE_SHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const big = `parseFloat(document.querySelector("#stage-cache .big").textContent)`

func TestTheLivePageLives(t *testing.T) {
	bin := binary(t)
	public, admin, data := serve(t, bin)
	ctx := browse(t, 1280, 900)

	do(t, ctx, chromedp.Evaluate(`window.faults = 0`, nil), chromedp.Navigate("http://"+admin+"/"), chromedp.WaitVisible("#stage-db"))
	await(t, ctx, "readiness", `document.querySelector("#ready").textContent === "ready"`)
	await(t, ctx, "the rooms in use", `document.querySelector("#stage-write .pill").textContent === "closed"`)

	load(t, bin, public, data)
	await(t, ctx, "jobs in the cache room", big+` > 0`)
	await(t, ctx, "writes while the keys are prepared, or after", `past.some(s => s.stages.some(x => x.name === "write" && x.done.found > 0))`)
	await(t, ctx, "a rate near what is offered", `rate(s => s.requests[0]) > 1000`)
	await(t, ctx, "the p50 in figures", `document.querySelector("#windows td:nth-child(3)").textContent.startsWith("≤")`)

	was := value[string](t, ctx, `document.querySelector("#c-rate path").getAttribute("d")`)
	await(t, ctx, "a chart that moves", `document.querySelector("#c-rate path").getAttribute("d") !== `+fmt.Sprintf("%q", was))
	shoot(t, ctx, "light.png")

	t.Run("a click opens a room, Escape closes it", func(t *testing.T) {
		do(t, ctx, chromedp.Click("#stage-cache"), chromedp.WaitVisible("#detail[open]"))
		await(t, ctx, "what the room is", `document.querySelector("#d-list").textContent.includes("stages.cache.depth")`)
		shoot(t, ctx, "room.png")
		do(t, ctx, chromedp.KeyEvent(kb.Escape))
		await(t, ctx, "the room closed and its card focused", `!document.querySelector("#detail").open && document.activeElement.id === "stage-cache"`)
	})
	t.Run("the keyboard opens a room, too", func(t *testing.T) {
		do(t, ctx, chromedp.Focus("#stage-db"), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible("#detail[open]"))
		do(t, ctx, chromedp.KeyEvent(kb.Escape))
	})
	t.Run("arrow keys move through a chart", func(t *testing.T) {
		do(t, ctx, chromedp.Focus("#c-rate svg"), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.ArrowLeft))
		await(t, ctx, "the second two ago", `document.querySelector("#c-rate .said").textContent.startsWith("2 s ago")`)
	})
	t.Run("pause holds still, resume goes on", func(t *testing.T) {
		do(t, ctx, chromedp.Click("#pause"))
		held := value[string](t, ctx, `document.querySelector("#c-rate path").getAttribute("d")`)
		n := value[int](t, ctx, `past.at(-1).at`)
		await(t, ctx, "two more seconds behind the pause", fmt.Sprintf(`past.at(-1).at >= %d + 2000`, n))
		if got := value[string](t, ctx, `document.querySelector("#c-rate path").getAttribute("d")`); got != held {
			t.Error("a paused chart moved")
		}
		do(t, ctx, chromedp.Click("#pause"))
		await(t, ctx, "the chart going on", `document.querySelector("#c-rate path").getAttribute("d") !== `+fmt.Sprintf("%q", held))
	})
	t.Run("dark", func(t *testing.T) {
		do(t, ctx, chromedp.Click("#theme"))
		await(t, ctx, "a dark page", `document.documentElement.dataset.theme === "dark"`)
		shoot(t, ctx, "dark.png")
	})
	t.Run("a phone", func(t *testing.T) {
		do(t, ctx, emulation.SetDeviceMetricsOverride(390, 844, 2, true), chromedp.Reload(), chromedp.WaitVisible("#stage-db"))
		await(t, ctx, "figures", big+` > 0`)
		if wide := value[int](t, ctx, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("the page is %d pixels wide on a screen of 390", wide)
		}
		shoot(t, ctx, "phone.png")
	})
}
