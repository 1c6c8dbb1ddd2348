package faults

import (
	"errors"
	"sync"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// SQLite makes SQLite's file operations in this process fail too, from now on: its
// file layer, which SQLite calls a VFS, gets one before it that asks, as package fsys
// does, what befalls each operation that changes the disk. Syncs are carried out if
// fsys.Syncs.
var SQLite = sync.OnceFunc(func() {
	tls := libc.NewTLS()
	below = at[sqlite3.Tsqlite3_vfs](sqlite3.Xsqlite3_vfs_find(tls, 0))
	layer = *below
	name, err := libc.CString("crepe-faults")
	if err != nil {
		panic(err)
	}
	layer.FzName, layer.FpNext = name, 0
	layer.FxOpen, layer.FxDelete = pointer[openFunc](openFile), pointer[deleteFunc](deleteFile)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, address(&layer), 1); rc != sqlite3.SQLITE_OK {
		panic("faults: SQLite does not take another file layer")
	}
})

// The functions of a file layer and of an open file, as SQLite calls them: handle is
// SQLite's of an open file, name a C string.
type (
	openFunc     = func(tls *libc.TLS, vfs, name, handle uintptr, flags int32, outFlags uintptr) int32
	deleteFunc   = func(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32
	closeFunc    = func(tls *libc.TLS, handle uintptr) int32
	writeFunc    = func(tls *libc.TLS, handle, data uintptr, n int32, offset sqlite3.Tsqlite3_int64) int32
	truncateFunc = func(tls *libc.TLS, handle uintptr, size sqlite3.Tsqlite3_int64) int32
	syncFunc     = func(tls *libc.TLS, handle uintptr, flags int32) int32
)

var (
	below *sqlite3.Tsqlite3_vfs // SQLite's own file layer
	layer sqlite3.Tsqlite3_vfs  // the one before it

	mu    sync.Mutex
	files = map[uintptr]file{}                         // open ones by handle
	ours  = map[uintptr]*sqlite3.Tsqlite3_io_methods{} // functions of files by SQLite's own
)

// file is an open file: its path, and SQLite's own functions for it.
type file struct {
	path    string
	methods *sqlite3.Tsqlite3_io_methods
}

func fileOf(handle uintptr) file {
	mu.Lock()
	defer mu.Unlock()
	return files[handle]
}

// at is what a pointer of SQLite's points to; address is the pointer to what is never
// freed.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func address[T any](v *T) uintptr { return uintptr(unsafe.Pointer(v)) }

// pointer is a function as SQLite, which is C translated to Go, keeps it; function is
// the function of such a pointer.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// befall carries out an operation unless a fault befalls it: a full disk, or else a
// failure, in SQLite's numbers.
func befall(op, path string, failure int32, operation func() int32) int32 {
	return befallHalf(op, path, failure, operation, func() int32 { return failure })
}

// befallHalf is befall of an operation that can be carried out by half.
func befallHalf(op, path string, failure int32, operation, half func() int32) int32 {
	f := fsys.Ask(op, path)
	switch {
	case f.Err == nil:
		return operation()
	case f.Done:
		operation()
	case f.Half:
		half()
	}
	if errors.Is(f.Err, syscall.ENOSPC) {
		return sqlite3.SQLITE_FULL
	}
	return failure
}

func openFile(tls *libc.TLS, _, name, handle uintptr, flags int32, outFlags uintptr) int32 {
	path, op, opened := libc.GoString(name), "open", at[sqlite3.Tsqlite3_file](handle)
	if flags&sqlite3.SQLITE_OPEN_CREATE != 0 {
		op = "create"
	}
	opened.FpMethods = 0 // SQLite closes no file without functions
	rc := befall(op, path, sqlite3.SQLITE_CANTOPEN, func() int32 {
		return function[openFunc](below.FxOpen)(tls, address(below), name, handle, flags, outFlags)
	})
	if opened.FpMethods == 0 {
		return rc
	}
	mu.Lock()
	defer mu.Unlock()
	own := opened.FpMethods
	files[handle] = file{path, at[sqlite3.Tsqlite3_io_methods](own)}
	m := ours[own]
	if m == nil {
		m = new(sqlite3.Tsqlite3_io_methods)
		*m = *at[sqlite3.Tsqlite3_io_methods](own)
		m.FxClose, m.FxWrite = pointer[closeFunc](closeFile), pointer[writeFunc](writeFile)
		m.FxTruncate, m.FxSync = pointer[truncateFunc](truncateFile), pointer[syncFunc](syncFile)
		ours[own] = m
	}
	opened.FpMethods = address(m)
	return rc // if it is not SQLITE_OK, SQLite closes the file
}

func deleteFile(tls *libc.TLS, _, name uintptr, syncDir int32) int32 {
	if !fsys.Syncs() {
		syncDir = 0
	}
	return befall("remove", libc.GoString(name), sqlite3.SQLITE_IOERR_DELETE, func() int32 {
		return function[deleteFunc](below.FxDelete)(tls, address(below), name, syncDir)
	})
}

// closeFile closes the file whatever befalls it.
func closeFile(tls *libc.TLS, handle uintptr) int32 {
	f := fileOf(handle)
	mu.Lock()
	delete(files, handle)
	mu.Unlock()
	rc := function[closeFunc](f.methods.FxClose)(tls, handle)
	return befall("close", f.path, sqlite3.SQLITE_IOERR_CLOSE, func() int32 { return rc })
}

func writeFile(tls *libc.TLS, handle, data uintptr, n int32, offset sqlite3.Tsqlite3_int64) int32 {
	f := fileOf(handle)
	write := func(n int32) func() int32 {
		return func() int32 { return function[writeFunc](f.methods.FxWrite)(tls, handle, data, n, offset) }
	}
	return befallHalf("write", f.path, sqlite3.SQLITE_IOERR_WRITE, write(n), write(n/2))
}

func truncateFile(tls *libc.TLS, handle uintptr, size sqlite3.Tsqlite3_int64) int32 {
	f := fileOf(handle)
	return befall("truncate", f.path, sqlite3.SQLITE_IOERR_TRUNCATE, func() int32 {
		return function[truncateFunc](f.methods.FxTruncate)(tls, handle, size)
	})
}

func syncFile(tls *libc.TLS, handle uintptr, flags int32) int32 {
	f := fileOf(handle)
	return befall("sync", f.path, sqlite3.SQLITE_IOERR_FSYNC, func() int32 {
		if !fsys.Syncs() {
			return sqlite3.SQLITE_OK
		}
		return function[syncFunc](f.methods.FxSync)(tls, handle, flags)
	})
}
