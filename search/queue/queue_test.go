package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/queue/pgtest"
	"github.com/crepe-llm/crepe/search/store"
)

// childURL makes this test binary a worker of the store there.
const childURL = "CREPE_TEST_WORKER"

// testLost is short, so that the death of a worker is found within seconds.
const testLost = 2 * time.Second

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		child(url)
	}
	os.Exit(pgtest.Main(m))
}

// child works until it is killed. Its answers name it, so that two would differ.
func child(url string) {
	s, err := Open(context.Background(), url, Options{})
	for ; err != nil; s, err = Open(context.Background(), url, Options{}) { // it may be born while the database is down
		time.Sleep(100 * time.Millisecond)
	}
	err = s.Work(context.Background(), Worker{Lost: testLost, Have: anything, Do: func(ctx context.Context, o search.Order) (string, error) {
		return answer(ctx, o, strconv.Itoa(os.Getpid()))
	}})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func anything(context.Context, search.Weights) error { return nil }

// answer takes as long as the order says.
func answer(ctx context.Context, o search.Order, who string) (string, error) {
	var took time.Duration
	if err := json.Unmarshal(o.Args, &took); err != nil {
		return "", err
	}
	if err := pause(ctx, took); err != nil {
		return "", err
	}
	return o.Key + " by " + who, nil
}

func open(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, Options{Note: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var weights = search.Weights{Name: "demo", ID: "0123456789abcdef", Bytes: 7}

func orders(n int, took time.Duration) []search.Order {
	out := make([]search.Order, n)
	for i := range out {
		args, _ := json.Marshal(took)
		out[i] = search.Order{Study: "grid", Kind: "cell", Key: fmt.Sprint(i), What: fmt.Sprintf("cell %d", i), Model: weights, Args: args}
	}
	return out
}

// work starts a worker that ends with the test.
func work(t *testing.T, s *Store, w Worker) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Work(ctx, w); !errors.Is(err, context.Canceled) {
			t.Errorf("worker: %v", err)
		}
	})
	end = func() { cancel(); done.Wait() }
	t.Cleanup(end)
	return end
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v, want one with %q", err, p)
		}
	}
}

func TestRecordsComeBack(t *testing.T) {
	ctx := t.Context()
	s := open(t, pgtest.Start(t).Database(t))
	rec := provenance.Record{{Name: "model", Value: "abc"}, {Name: "pattern", Value: "2:4"}}
	st, err := s.Study(ctx, "search", rec)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []search.Record{{Key: "b", Value: "é"}, {Key: "a", Value: ""}, {Key: "a", Value: "later"}, {Key: "c", Value: "3"}} {
		if err := st.Add(ctx, "cell", r); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(st.Remove(ctx, "cell", "c"), st.Remove(ctx, "cell", "never")); err != nil {
		t.Fatal(err)
	}
	if st, err = s.Study(ctx, "search", rec); err != nil {
		t.Fatal(err)
	}
	if got, err := st.Records(ctx, "cell"); err != nil || fmt.Sprint(got) != "[{b é} {a }]" {
		t.Errorf("%v (%v), want b, and the first a", got, err)
	}
	_, err = s.Study(ctx, "search", provenance.Record{{Name: "model", Value: "xyz"}})
	var m *search.MismatchError
	if wantError(t, err, "another search", "model: abc, this is xyz"); !errors.As(err, &m) {
		t.Errorf("%v, want a MismatchError", err)
	}
	if err := s.Forget(ctx, "search"); err != nil {
		t.Fatal(err)
	}
	if st, err = s.Study(ctx, "search", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := st.Records(ctx, "cell"); err != nil || len(got) != 0 {
		t.Errorf("forgotten, it has %v (%v)", got, err)
	}
	if err := errors.Join(s.Keep(ctx, "h", []byte{0, 255}), s.Keep(ctx, "h", []byte{0, 255})); err != nil {
		t.Fatal(err)
	}
	if text, err := s.Text(ctx, "h"); err != nil || string(text) != "\x00\xff" {
		t.Errorf("text %q (%v)", text, err)
	}
	_, err = s.Text(ctx, "absent")
	wantError(t, err, "no text with hash absent")
}

// A schema of a newer crepe, or of a newer River, is refused; two that open an empty
// database at once make one schema.
func TestSchemaGoesForwardOnly(t *testing.T) {
	url := pgtest.Start(t).Database(t)
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			s, err := Open(t.Context(), url, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	both.Wait()
	s := open(t, url)
	for set, back := range map[string]string{
		"UPDATE crepe.version SET version = 99":                                 "UPDATE crepe.version SET version = 1",
		"INSERT INTO crepe.river_migration (line, version) VALUES ('main', 99)": "SELECT 1",
	} {
		if _, err := s.pool.Exec(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), url, Options{})
		wantError(t, err, "schema 99", "want at most", "newer crepe")
		if _, err := s.pool.Exec(t.Context(), back); err != nil {
			t.Fatal(err)
		}
	}
}

// No error, note or stored text shows the password, whatever goes wrong.
func TestPasswordIsNeverShown(t *testing.T) {
	server := pgtest.Start(t)
	good := server.Database(t)
	secret := "s3cr%25t%40x"
	for name, url := range map[string]string{
		"wrong password": strings.Replace(good, "p%40ss%2Fw%3Ard", secret, 1),
		"no port":        "postgres://u:" + secret + "@127.0.0.1:1/x",
		"bad escape":     "postgres://u:s3cr%zzet@h/x",
		"bad port":       "postgres://u:" + secret + "@h:xyz/x",
		"bad option":     "postgres://u:" + secret + "@h/x?sslmode=perhaps",
		"in the query":   "postgres://u@127.0.0.1:1/x?password=" + secret + "&sslmode=perhaps",
		"no database":    strings.Replace(good, "/d", "/nothing", 1),
		"bad root cert":  good + "?sslmode=verify-full&sslrootcert=/nowhere",
		"other scheme":   "mysql://u:" + secret + "@h/x",
	} {
		_, err := Open(t.Context(), url, Options{})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			for _, s := range []string{"s3cr", pgtest.Password, "p%40ss", "w%3Ard", "w:rd"} {
				if strings.Contains(e.Error(), s) || strings.Contains(fmt.Sprintf("%+v", e), s) {
					t.Errorf("%s: %v shows the password", name, e)
				}
			}
		}
		t.Logf("%s: %v", name, err)
	}
	s := open(t, good)
	if strings.Contains(s.Name(), "@") || !strings.Contains(s.Name(), server.Host) {
		t.Errorf("name %s", s.Name())
	}
	if err := s.Order(t.Context(), orders(1, 0)...); err != nil {
		t.Fatal(err)
	}
	var stored string
	if err := s.pool.QueryRow(t.Context(), "SELECT string_agg(j::text, ' ') FROM crepe.river_job j").Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if stored == "" || strings.Contains(stored, "ss/w") {
		t.Errorf("stored: %s", stored)
	}
}

// TLS is as the URL says: every connection of a store and a worker has it, and a server
// that the root certificate does not vouch for is refused.
func TestTLS(t *testing.T) {
	server := pgtest.Start(t)
	plain := server.Database(t)
	_, err := Open(t.Context(), plain+"?sslmode=require", Options{})
	wantError(t, err, "TLS")
	root := server.TLS(t)
	url := plain + "?sslmode=verify-full&sslrootcert=" + root
	s := open(t, url)
	encrypted := make(chan [2]int, 1)
	work(t, open(t, url), Worker{Have: anything, Do: func(ctx context.Context, _ search.Order) (string, error) {
		var n [2]int
		err := s.pool.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
			WHERE datname = current_database()`).Scan(&n[0], &n[1])
		encrypted <- n
		return "done", err
	}})
	if err := s.Ask(t.Context(), orders(1, 0), func(int, string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if n := <-encrypted; n[0] < 2 || n[0] != n[1] {
		t.Errorf("%d of %d connections have TLS", n[1], n[0])
	}

	other := filepath.Join(t.TempDir(), "other.crt")
	if err := os.WriteFile(other, pgtest.Certificate(t), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), plain+"?sslmode=verify-ca&sslrootcert="+other, Options{})
	wantError(t, err, "certificate")
	_, err = Open(t.Context(), strings.Replace(url, "127.0.0.1", "localhost", 1), Options{})
	wantError(t, err, "certificate", "localhost")
}

// An order is answered once, however often it is asked for, and by several workers.
func TestOrdersAreAnsweredOnce(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	all := orders(30, 0)
	if err := errors.Join(s.Order(ctx, all[:20]...), s.Order(ctx, all[10:]...)); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	did := map[string]int{}
	for range 3 {
		work(t, open(t, url), Worker{Have: anything, Do: func(_ context.Context, o search.Order) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			did[o.Key]++
			return "answer to " + o.Key, nil
		}})
	}
	got := map[int]string{}
	if err := s.Ask(ctx, all, func(i int, v string) error { got[i] = v; return nil }); err != nil {
		t.Fatal(err)
	}
	for i, o := range all {
		if got[i] != "answer to "+o.Key || did[o.Key] != 1 {
			t.Errorf("order %d: %q, carried out %d times", i, got[i], did[o.Key])
		}
	}
	n := 0
	if err := s.Ask(ctx, all, func(int, string) error { n++; return nil }); err != nil || n != len(all) {
		t.Errorf("asked again: %d answers (%v)", n, err)
	}
}

// An order that fails three times is given up with its error; one that is asked for
// again begins anew. What a worker has not got is left to another.
func TestFailuresAndRefusals(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	broken := make(chan bool, 100)
	end := work(t, open(t, url), Worker{
		Lost: testLost,
		Have: func(_ context.Context, w search.Weights) error {
			if w != weights {
				return fmt.Errorf("model %s (%s): not here", w.Name, w.ID)
			}
			return nil
		},
		Do: func(context.Context, search.Order) (string, error) {
			broken <- true
			return "", errors.New("the disk is full")
		},
	})
	o := orders(2, 0)
	o[1].Model = search.Weights{Name: "other", ID: "fedcba9876543210"}
	err := s.Ask(ctx, o[:1], func(int, string) error { return nil })
	wantError(t, err, "cell 0", "given up after 3 attempts", "disk is full")
	if len(broken) != 3 {
		t.Errorf("%d attempts, want 3", len(broken))
	}
	end()
	work(t, open(t, url), Worker{Have: anything, Do: func(context.Context, search.Order) (string, error) { return "done", nil }})
	n := 0
	if err := s.Ask(ctx, o, func(_ int, v string) error { n += len(v); return nil }); err != nil || n != 8 {
		t.Errorf("%d, %v", n, err)
	}
}

// What a worker leaves to others is not a failed attempt, and another has it at once.
func TestLeftOrders(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	tries := make(chan bool, 100)
	small := Worker{Lost: testLost, Have: anything, Do: func(context.Context, search.Order) (string, error) {
		tries <- true
		return "", Leave(errors.New("memory budget too small"))
	}}
	if err := s.Order(ctx, orders(1, 0)...); err != nil {
		t.Fatal(err)
	}
	for range 4 { // more than an order may fail on
		work(t, open(t, url), small)
		<-tries
	}
	work(t, open(t, url), Worker{Have: anything, Do: func(context.Context, search.Order) (string, error) { return "done", nil }})
	if err := s.Ask(ctx, orders(1, 0), func(_ int, v string) error {
		if v != "done" {
			t.Errorf("%q", v)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if n := len(tries); n != 0 {
		t.Errorf("%d more attempts of workers that have left it", n)
	}
}

// A worker that is told to stop gives its order back at once.
func TestStoppedWorkerGivesBack(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	begun := make(chan bool, 2)
	slow := Worker{Have: anything, Do: func(ctx context.Context, o search.Order) (string, error) {
		begun <- true
		return answer(ctx, o, "slow")
	}}
	end := work(t, open(t, url), slow)
	o := orders(1, time.Hour)
	if err := s.Order(ctx, o...); err != nil {
		t.Fatal(err)
	}
	<-begun
	started := time.Now()
	end()
	work(t, open(t, url), Worker{Have: anything, Do: func(context.Context, search.Order) (string, error) { return "quick", nil }})
	if err := s.Ask(ctx, o, func(_ int, v string) error {
		if v != "quick" {
			t.Errorf("%q", v)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took > 15*time.Second {
		t.Errorf("after %v", took)
	}
}

// kills is how many workers TestKilledWorkers kills: CREPE_TEST_FAULTS=all asks for 50.
func kills() int {
	if os.Getenv("CREPE_TEST_FAULTS") == "all" {
		return 50
	}
	return 4
}

// Three workers are killed at random moments and replaced, PostgreSQL is restarted
// twice, once without a shutdown, and the network of one worker hangs: every order is
// answered, by one worker, and none waits longer than it takes to miss its worker.
func TestKilledWorkers(t *testing.T) {
	server := pgtest.Start(t)
	url := server.Database(t)
	s := open(t, url)
	rng, n := splitmix.Source(1), kills()
	const took = 300 * time.Millisecond
	all := orders(8*n, took)
	if err := s.Order(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	proxy := pgtest.NewProxy(t, server.Host)
	spawn := func(url string) *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childURL+"="+url)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	workers := []*exec.Cmd{spawn(url), spawn(url), spawn(strings.Replace(url, server.Host, proxy.Host, 1))}
	defer func() {
		for _, c := range workers {
			c.Process.Kill()
			c.Wait()
		}
	}()
	var chaos sync.WaitGroup
	chaos.Go(func() {
		for i := range n {
			time.Sleep(time.Duration(rng.Next() % uint64(2*time.Second)))
			at := int(rng.Next() % 2)
			workers[at].Process.Kill()
			workers[at].Wait()
			workers[at] = spawn(url)
			switch i {
			case n / 4:
				if err := errors.Join(server.Stop("fast"), server.Up()); err != nil {
					t.Error(err)
				}
			case n / 3:
				proxy.Hang(true)
			case n / 2:
				if err := errors.Join(server.Stop("immediate"), server.Up()); err != nil {
					t.Error(err)
				}
			case 3 * n / 4:
				proxy.Hang(false)
			}
		}
	})
	answered := map[int]string{}
	err := s.Ask(t.Context(), all, func(i int, v string) error { answered[i] = v; return nil })
	chaos.Wait()
	if err != nil {
		t.Fatal(err)
	}
	again := map[int]string{}
	if err := s.Ask(t.Context(), all, func(i int, v string) error { again[i] = v; return nil }); err != nil {
		t.Fatal(err)
	}
	for i, o := range all {
		if !strings.HasPrefix(answered[i], o.Key+" by ") || again[i] != answered[i] {
			t.Errorf("order %d: %q, then %q", i, answered[i], again[i])
		}
	}
	var states string
	err = s.pool.QueryRow(t.Context(), `SELECT string_agg(DISTINCT state::text, ' ') FROM crepe.river_job`).Scan(&states)
	if err != nil || states != "completed" {
		t.Errorf("jobs are %s (%v), want all completed", states, err)
	}
	var lost int
	if err := s.pool.QueryRow(t.Context(), `SELECT coalesce(sum((metadata->>'lost')::int), 0) FROM crepe.river_job`).Scan(&lost); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d workers killed, %d orders taken from lost workers", n, lost)
}

// A worker that is still at work when its order is given to another: what the first
// delivers stays.
func TestLostWorkerThatLives(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	begun, slow := make(chan bool, 3), make(chan bool)
	o := orders(1, 0)
	if err := s.Order(ctx, o...); err != nil {
		t.Fatal(err)
	}
	do := func(ctx context.Context, o search.Order) (string, error) {
		begun <- true
		if len(begun) == 1 {
			<-slow
			return "first", nil
		}
		<-ctx.Done() // the answer is there: the second hears that it is not wanted
		return "", ctx.Err()
	}
	work(t, open(t, url), Worker{Have: anything, Do: do, Lost: time.Hour}) // its heart does not beat
	for len(begun) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(testLost)
	work(t, open(t, url), Worker{Have: anything, Do: do, Lost: testLost})
	for len(begun) == 1 {
		time.Sleep(10 * time.Millisecond)
	}
	close(slow)
	if err := s.Ask(ctx, o, func(_ int, v string) error {
		if v != "first" {
			t.Errorf("%q", v)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A clock that has gone wrong, of whoever set a job's times, keeps no job waiting.
func TestTimesOfAWrongClock(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	o := orders(3, 0)
	if err := s.Order(ctx, o...); err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{
		"UPDATE crepe.river_job SET scheduled_at = now() + '1 year' WHERE args->>'key' = '0'",
		"UPDATE crepe.river_job SET state = 'retryable', scheduled_at = now() + '1 year' WHERE args->>'key' = '1'",
		"UPDATE crepe.river_job SET state = 'scheduled', scheduled_at = now() + '1 year' WHERE args->>'key' = '2'",
	} {
		if _, err := s.pool.Exec(ctx, set); err != nil {
			t.Fatal(err)
		}
	}
	work(t, open(t, url), Worker{Lost: testLost, Have: anything, Do: func(context.Context, search.Order) (string, error) { return "", nil }})
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := s.Ask(limit, o, func(int, string) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestWithdraw(t *testing.T) {
	ctx := t.Context()
	s := open(t, pgtest.Start(t).Database(t))
	o := orders(3, 0)
	for i := range o {
		o[i].Later = true
	}
	if err := s.Order(ctx, o...); err != nil {
		t.Fatal(err)
	}
	o[0].Later = false
	if err := errors.Join(s.Order(ctx, o[0]), s.Withdraw(ctx, o...)); err != nil {
		t.Fatal(err)
	}
	var left string
	if err := s.pool.QueryRow(ctx, "SELECT string_agg(args->>'key', ' ') FROM crepe.river_job").Scan(&left); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	if left != "0" {
		t.Errorf("left: %q, want 0, which somebody waits for", left)
	}
}

// What is at work, waits and was given up is shown, can be cancelled and asked for
// again, and what is finished copied.
func TestStatusCancelRetryExport(t *testing.T) {
	ctx, url := t.Context(), pgtest.Start(t).Database(t)
	s := open(t, url)
	o := orders(3, 0)
	if err := s.Order(ctx, o...); err != nil {
		t.Fatal(err)
	}
	begun := make(chan bool, 10)
	work(t, open(t, url), Worker{Lost: testLost, Have: anything, Do: func(ctx context.Context, o search.Order) (string, error) {
		begun <- true
		if o.Key == "0" && len(begun) == 1 {
			<-ctx.Done()
			return "", ctx.Err()
		}
		return "done", nil
	}})
	for len(begun) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	st, err := s.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Studies) != 1 || st.Studies[0] != (StudyStatus{Name: "grid", Running: 1, Waiting: 2}) || len(st.Jobs) != 3 ||
		st.Jobs[0].State != "running" || st.Jobs[0].What != "cell 0" || st.Jobs[0].Worker == "" || st.Jobs[0].Model != weights || st.Jobs[1].State != "waiting" {
		t.Errorf("%+v", st)
	}
	if n, err := s.Cancel(ctx, st.Jobs[0].ID, st.Jobs[2].ID); err != nil || n != 2 {
		t.Errorf("cancelled %d (%v), want 2", n, err)
	}
	if err := s.Ask(ctx, o[2:], func(int, string) error { return nil }); err != nil { // it is ordered again
		t.Error(err)
	}
	wait := func(want StudyStatus) {
		t.Helper()
		for range 500 {
			if st, err = s.Status(ctx); err != nil {
				t.Fatal(err)
			}
			if len(st.Studies) == 1 && st.Studies[0] == want {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("%+v, want %+v", st, want)
	}
	wait(StudyStatus{Name: "grid", Records: 2, Failed: 1})
	if _, err := s.Cancel(ctx, 999); err == nil || !strings.Contains(err.Error(), "no job 999") {
		t.Errorf("error %v", err)
	}
	if n, err := s.Retry(ctx); err != nil || n != 1 {
		t.Errorf("%d again (%v), want 1", n, err)
	}
	wait(StudyStatus{Name: "grid", Records: 3})
	file, err := store.Open(ctx, filepath.Join(t.TempDir(), "x.study"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if studies, records, err := s.Export(ctx, file); err != nil || studies != 1 || records != 3 {
		t.Errorf("%d studies, %d records (%v)", studies, records, err)
	}
}
