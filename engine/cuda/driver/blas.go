package driver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"github.com/crepe-llm/crepe/engine"
)

// Type is the type of a matrix's elements.
type Type uint64

// The types, by cuBLAS' numbers.
const (
	F32  Type = 0
	F16  Type = 2
	BF16 Type = 14
)

// Size returns the bytes of an element.
func (t Type) Size() int {
	if t == F32 {
		return 4
	}
	return 2
}

// Product is D = op(A)·op(B) of column-major matrices, D M × N in float32, op(A) M × K, op(B) K × N, op the transpose or nothing. Sums are
// float32, products exact.
type Product struct {
	M, N, K        int
	A, B, D        Pointer
	LDA, LDB, LDD  int // elements from one column to the next
	TransA, TransB bool
	Type           Type // of A and B
}

// blas is cuBLASLt, open.
type blas struct {
	f         [blasFunctions]function
	handle    uint64
	workspace Pointer
	one, zero uint64 // addresses of float32 constants there

	mu    sync.Mutex
	plans map[planKey]*plan
	algos map[algoKey]*algorithm
}

const (
	ltCreate = iota
	ltVersion
	ltDescCreate
	ltDescSet
	ltLayoutCreate
	ltPreferenceCreate
	ltPreferenceSet
	ltHeuristic
	ltCheck
	ltMatmul
	blasFunctions
)

var blasNames = [blasFunctions]string{
	"cublasLtCreate", "cublasLtGetVersion", "cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate",
	"cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulAlgoGetHeuristic",
	"cublasLtMatmulAlgoCheck", "cublasLtMatmul",
}

const workspaceBytes = 64 << 20

// openBlas finds cuBLASLt: where BlasVariable says, on the loader's path, with the CUDA
// toolkit, or in a Python environment.
func openBlas(d *Device) (*blas, error) {
	b := &blas{plans: map[planKey]*plan{}, algos: map[algoKey]*algorithm{}}
	var library uint64
	var err error
	for _, path := range blasPaths() {
		if library, err = d.host.open(path); err == nil {
			break
		}
	}
	if library == 0 {
		return nil, fmt.Errorf("libcublasLt.so.12 or .13 is not found: install the CUDA toolkit, or run pip install nvidia-cublas, or name the file in %s", BlasVariable)
	}
	for i, name := range blasNames {
		if b.f[i], err = d.host.symbol(library, name); err != nil {
			return nil, fmt.Errorf("libcublasLt: %w", err)
		}
	}
	there, here := d.host.word()
	if code := d.host.call(b.f[ltCreate], there); uint32(code) != 0 {
		return nil, fmt.Errorf("libcublasLt: cublasLtCreate: status %d", uint32(code))
	}
	b.handle = *here
	if b.workspace, err = d.Alloc(workspaceBytes); err != nil {
		return nil, fmt.Errorf("%w: products need %d MiB", err, workspaceBytes>>20)
	}
	b.one, b.zero = d.host.reserve(8), d.host.reserve(8)
	binary.LittleEndian.PutUint32(d.host.at(b.one), 0x3f800000)
	binary.LittleEndian.PutUint32(d.host.at(b.zero), 0)
	v := uint32(d.host.call(b.f[ltVersion]))
	d.Info.Blas = fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
	return b, nil
}

// blasPaths returns where cuBLASLt may lie, the likeliest first.
func blasPaths() []string {
	if path := os.Getenv(BlasVariable); path != "" {
		return []string{path}
	}
	paths := []string{"libcublasLt.so.13", "libcublasLt.so.12"}
	var dirs []string
	for _, root := range []string{os.Getenv("CUDA_HOME"), os.Getenv("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"} {
		if root != "" {
			dirs = append(dirs, filepath.Join(root, "lib64"))
		}
	}
	dirs = append(dirs, "/usr/local/cuda-*/lib64", "/usr/lib/x86_64-linux-gnu")
	var roots []string
	for _, root := range []string{os.Getenv("VIRTUAL_ENV"), os.Getenv("CONDA_PREFIX")} {
		if root != "" {
			roots = append(roots, root)
		}
	}
	if python, err := exec.LookPath("python3"); err == nil {
		roots = append(roots, filepath.Dir(filepath.Dir(python)))
	}
	if home, err := os.UserHomeDir(); err == nil {
		roots = append(roots, filepath.Join(home, ".local"))
	}
	for _, root := range append(roots, "/usr/local", "/usr") {
		for _, packages := range []string{"site-packages", "dist-packages"} {
			dirs = append(dirs, filepath.Join(root, "lib", "python3*", packages, "nvidia", "*", "lib"))
		}
	}
	for _, dir := range dirs {
		for _, name := range []string{"libcublasLt.so.13", "libcublasLt.so.12"} {
			found, _ := filepath.Glob(filepath.Join(dir, name))
			slices.Sort(found)
			slices.Reverse(found) // the newest toolkit or Python
			paths = append(paths, found...)
		}
	}
	return paths
}

// planKey is all of a Product that its matrices' descriptions hold.
type planKey struct {
	m, n, k, lda, ldb, ldd int
	transA, transB         bool
	t                      Type
	align                  uint64
}

// plan describes a Product to cuBLASLt.
type plan struct {
	desc, a, b, d uint64
	algo          uint64 // address of cublasLtMatmulAlgo_t
}

// algoKey is planKey but for the number of columns, of which there are two classes: the
// way a column's sums are taken must not depend on how many there are.
type algoKey struct {
	planKey
	many bool
}

// algorithm is what cuBLASLt chose; memory that holds cublasLtMatmulHeuristicResult_t.
type algorithm struct{ there uint64 }

// few is how many columns of D fewer are computed in a way of their own, as
// model.PiecesRows lets them be; usual is how many there usually are of more.
const (
	few   = 16
	usual = 2048
)

// Multiply posts a Product to the Main stream. The result of a column of D depends on
// A, on that column of B, and on whether D has fewer than 16 columns. It reports whether cuBLASLt
// takes matrices so aligned.
func (d *Device) Multiply(p Product) bool {
	plan, err := d.plan(p)
	if err != nil {
		panic(&engine.Failure{Err: fmt.Errorf("%s: %w", d.Info.Name, err)})
	}
	if plan == nil {
		return false
	}
	b := d.blas
	d.host.post(b.f[ltMatmul], b.handle, plan.desc, b.one, uint64(p.A), plan.a, uint64(p.B), plan.b, b.zero,
		uint64(p.D), plan.d, uint64(p.D), plan.d, plan.algo, uint64(b.workspace), workspaceBytes, uint64(d.Main))
	return true
}

// alignment returns the largest power of 2 up to 256 that divides all addresses.
func alignment(addresses ...uint64) uint64 {
	all := uint64(256)
	for _, a := range addresses {
		all |= a
	}
	return all & -all
}

// plan returns how p is to be computed; nil if cuBLASLt has no way.
func (d *Device) plan(p Product) (*plan, error) {
	size := uint64(p.Type.Size())
	align := alignment(uint64(p.A), uint64(p.B), uint64(p.D), uint64(p.LDA)*size, uint64(p.LDB)*size, 4*uint64(p.LDD))
	key := planKey{p.M, p.N, p.K, p.LDA, p.LDB, p.LDD, p.TransA, p.TransB, p.Type, min(align, 16)}
	b := d.blas
	b.mu.Lock()
	defer b.mu.Unlock()
	if found, ok := b.plans[key]; ok {
		return found, nil
	}
	made, err := d.describe(key)
	if err != nil {
		return nil, err
	}
	a, common := algoKey{key, p.N >= few}, key
	if !p.TransB { // B and D may have any number of columns
		a.n = 0
		if common.n = few - 1; a.many {
			common.n = usual
		}
	}
	algo, ok := b.algos[a]
	if !ok {
		if algo, err = d.choose(common); err != nil {
			return nil, err
		}
		b.algos[a] = algo
	}
	if algo == nil {
		made = nil
	} else {
		made.algo = algo.there
		result := d.host.reserve(96)
		code := d.host.call(b.f[ltCheck], b.handle, made.desc, made.a, made.b, made.d, made.d, made.algo, result)
		if uint32(code) != 0 {
			own, err := d.choose(key)
			if err != nil {
				return nil, err
			}
			if own == nil {
				made = nil
			} else {
				made.algo = own.there
			}
		}
	}
	b.plans[key] = made
	return made, nil
}

// describe makes the descriptions of key's matrices.
func (d *Device) describe(key planKey) (*plan, error) {
	b := d.blas
	p := &plan{}
	create := func(to *uint64, f int, args ...uint64) error {
		there, here := d.host.word()
		if code := uint32(d.host.call(b.f[f], append([]uint64{there}, args...)...)); code != 0 {
			return fmt.Errorf("%s: status %d", blasNames[f], code)
		}
		*to = *here
		return nil
	}
	const compute32F = 68
	aRows, aCols, bRows, bCols := key.m, key.k, key.k, key.n
	if key.transA {
		aRows, aCols = key.k, key.m
	}
	if key.transB {
		bRows, bCols = key.n, key.k
	}
	err := errors.Join(
		create(&p.desc, ltDescCreate, compute32F, uint64(F32)),
		create(&p.a, ltLayoutCreate, uint64(key.t), uint64(aRows), uint64(aCols), uint64(key.lda)),
		create(&p.b, ltLayoutCreate, uint64(key.t), uint64(bRows), uint64(bCols), uint64(key.ldb)),
		create(&p.d, ltLayoutCreate, uint64(F32), uint64(key.m), uint64(key.n), uint64(key.ldd)))
	if err != nil {
		return nil, err
	}
	const transA, transB = 3, 4
	for attr, on := range map[uint64]bool{transA: key.transA, transB: key.transB} {
		if !on {
			continue
		}
		there, here := d.host.word()
		*here = 1 // CUBLAS_OP_T
		if code := uint32(d.host.call(b.f[ltDescSet], p.desc, attr, there, 4)); code != 0 {
			return nil, fmt.Errorf("%s: status %d", blasNames[ltDescSet], code)
		}
	}
	return p, nil
}

// choose asks cuBLASLt for its best way that sums in one order; nil if there is none.
func (d *Device) choose(key planKey) (*algorithm, error) {
	b := d.blas
	p, err := d.describe(key)
	if err != nil {
		return nil, err
	}
	there, here := d.host.word()
	if code := uint32(d.host.call(b.f[ltPreferenceCreate], there)); code != 0 {
		return nil, fmt.Errorf("%s: status %d", blasNames[ltPreferenceCreate], code)
	}
	preference := *here
	set := func(attr, value uint64, size int) {
		there, here := d.host.word()
		*here = value
		if code := uint32(d.host.call(b.f[ltPreferenceSet], preference, attr, there, uint64(size))); code != 0 {
			err = errors.Join(err, fmt.Errorf("%s: attribute %d: status %d", blasNames[ltPreferenceSet], attr, code))
		}
	}
	const maxWorkspace, reductions, alignA = 1, 3, 5
	set(maxWorkspace, workspaceBytes, 8)
	set(reductions, 0, 4) // none
	for i := range uint64(4) {
		set(alignA+i, key.align, 4)
	}
	if err != nil {
		return nil, err
	}
	result := d.host.reserve(96)
	count, n := d.host.word()
	code := uint32(d.host.call(b.f[ltHeuristic], b.handle, p.desc, p.a, p.b, p.d, p.d, preference, 1, result, count))
	const notSupported = 15
	if code == notSupported || code == 0 && uint32(*n) == 0 {
		return nil, nil
	}
	if code != 0 {
		return nil, fmt.Errorf("%s: status %d", blasNames[ltHeuristic], code)
	}
	if state := binary.LittleEndian.Uint32(d.host.at(result)[72:]); state != 0 {
		return nil, nil
	}
	return &algorithm{result}, nil
}
