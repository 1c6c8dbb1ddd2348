package checkpoint

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crepe-llm/crepe/tensor"
)

// mount mounts a file system of its own in memory.
func mount(t *testing.T, flags uintptr, data string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, data); err != nil {
		t.Skipf("no file system to mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestDiskFull: the disk cannot hold the output. It is said at once, and
// nothing is left behind.
func TestDiskFull(t *testing.T) {
	dir := mount(t, 0, "size=64k")
	inv := open(t, folder(t, map[string]string{singleName: string(safetensorsFile(t, 1, blocks)), "big.txt": string(make([]byte, 100_000))}))
	target := filepath.Join(dir, "out")
	_, err := Create(target, plan(t, inv, 0), inv, options)
	wantError(t, err, "disk full", dir, "needs 10")
	entries, _ := os.ReadDir(dir)
	if len(entries) != 0 {
		t.Errorf("%s is left behind", entries[0].Name())
	}
}

// TestDiskFills: the disk fills while the output is written. What was marked
// is not lost.
func TestDiskFills(t *testing.T) {
	dir := mount(t, 0, "size=256k")
	inv := open(t, folder(t, sharded(t)))
	p := plan(t, inv, 300)
	want := finished(t, inv, p)
	target := filepath.Join(dir, "out")
	w, err := Create(target, p, inv, options)
	if err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "full")
	file, err := os.Create(full)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	if !isDiskFull(err) {
		t.Fatal(err)
	}
	file.Close()
	// Tensors have their place already. The journal's next page does not, nor
	// has crepe.json.
	err = drive(t, w, inv, never)
	wantError(t, err, "disk full")
	w.Close()
	os.Remove(full)
	goOn(t, target, p, inv, options)
	sameTree(t, tree(t, target), want)
}

func TestTargetReadOnly(t *testing.T) {
	dir := mount(t, unix.MS_RDONLY, "")
	inv := open(t, folder(t, sharded(t)))
	_, err := Create(filepath.Join(dir, "out"), plan(t, inv, 0), inv, options)
	wantError(t, err, "cannot write beside the output folder", dir, "read-only")
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("%v, want EROFS in it", err)
	}
}

func TestTargetIsMountPoint(t *testing.T) {
	dir := mount(t, 0, "")
	inv := open(t, folder(t, sharded(t)))
	wantError(t, CheckTarget(dir, inv, false), "mount point", dir)
	if err := CheckTarget(filepath.Join(dir, "out"), inv, false); err != nil {
		t.Error(err)
	}
}

func TestFreeBytes(t *testing.T) {
	dir := mount(t, 0, "size=1m")
	free, err := FreeBytes(filepath.Join(dir, "not", "there", "yet"))
	if err != nil || free != 1<<20 {
		t.Errorf("%d, %v, want 1048576", free, err)
	}
}

// TestPipes: what would block if it were opened is not.
func TestPipes(t *testing.T) {
	dir := folder(t, map[string]string{singleName: string(safetensorsFile(t, 1, blocks))})
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o666); err != nil {
		t.Skip(err)
	}
	if left := open(t, dir).LeftOut(); len(left) != 1 || left[0] != (LeftOut{"pipe", reasonNotAFile}) {
		t.Errorf("left out %v, want the pipe", left)
	}
	os.Remove(filepath.Join(dir, singleName))
	if err := unix.Mkfifo(filepath.Join(dir, singleName), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	wantError(t, err, singleName, "a pipe, want a regular file")
}

// BenchmarkRead is the measurement behind reading with pread: a copy out of a
// mapping that is given back as it goes beside it, from the page cache and from
// disk. A tensor is of 90 MB, the largest of a 7B model's block.
func BenchmarkRead(b *testing.B) {
	const part, parts = 90 << 20, 12
	dir := b.TempDir()
	path := filepath.Join(dir, singleName)
	h := header{tensors: make([]Tensor, parts)}
	for i := range parts {
		h.tensors[i] = Tensor{Name: string(rune('a' + i)), DType: tensor.U8, Shape: []int{part}, Size: part}
	}
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	head := h.encode()
	chunk := bytes.Repeat([]byte("weights?"), part/8)
	f.Write(head)
	for range parts {
		f.Write(chunk)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	write(b, dir, map[string]string{"config.json": "{}"})
	inv := open(b, dir)
	mapped, err := unix.Mmap(int(f.Fd()), 0, len(head)+parts*part, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(mapped)
	copyMapped := func(t Tensor, dst []byte) error {
		copy(dst, mapped[t.Offset:])
		lo, hi := t.Offset&^4095, (t.Offset+t.Size)&^4095
		return unix.Madvise(mapped[lo:hi], unix.MADV_DONTNEED)
	}
	for _, c := range []struct {
		name string
		read func(Tensor, []byte) error
	}{{"pread", inv.Read}, {"mmap", copyMapped}} {
		for _, from := range []string{"cache", "disk"} {
			b.Run(c.name+"/"+from, func(b *testing.B) {
				b.SetBytes(parts * part)
				for b.Loop() {
					if from == "disk" {
						b.StopTimer()
						unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
						b.StartTimer()
					}
					for _, t := range inv.Tensors() {
						if err := c.read(t, chunk); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
