package hf

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/gguf"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// view is a tensor of the folder as rows of one of the file. A vector is a view
// of rows of one element, so that it can be permuted like a matrix.
type view struct {
	stored gguf.Tensor
	first  int     // row of the file's tensor
	rows   int     // from first on
	cols   int     // 1 for a vector
	head   int     // rows of a head, which are permuted; 0 for none
	shift  float32 // added to each element
}

// addTensors finds what each tensor of the file is in the folder.
func (m *model) addTensors(a *architecture, c config) error {
	for _, t := range m.file.Tensors {
		if consumed[t.Name] {
			continue
		}
		name, ok := a.rename(t.Name, c.int("num_hidden_layers"))
		if !ok {
			return fmt.Errorf("tensor %.100s is not known in a model of architecture %s", t.Name, a.name)
		}
		if strings.Contains(name, "%d") {
			if err := m.addExperts(name, t, c); err != nil {
				return err
			}
			continue
		}
		v := view{stored: t, rows: t.Rows(), cols: t.Cols()}
		if len(t.Shape) == 1 {
			v.rows, v.cols = t.Cols(), 1
		}
		if a.permuted && isQK(name) {
			v.head = c.int("head_dim")
			if v.head%2 != 0 || v.rows%v.head != 0 {
				return fmt.Errorf("tensor %.100s: %d rows, want a multiple of the length of a head, %d, which must be even", t.Name, v.rows, v.head)
			}
		}
		if a.shifted && strings.HasSuffix(name, "norm.weight") {
			v.shift = -1
		}
		m.add(name, t.Shape, v)
	}
	return nil
}

// consumed are the tensors that have become keys of config.json.
var consumed = map[string]bool{
	"rope_freqs.weight": true, "rope_factors_long.weight": true, "rope_factors_short.weight": true,
}

// isQK reports whether a tensor's rows are turned by their position.
func isQK(name string) bool {
	return strings.Contains(name, ".q_proj.") || strings.Contains(name, ".k_proj.")
}

// rename returns the Hugging Face name of a tensor, with %d for an expert.
func (a *architecture) rename(name string, blocks int) (string, bool) {
	stem, kind, ok := cutLast(name, ".") // weight or bias
	if !ok || kind != "weight" && kind != "bias" {
		return "", false
	}
	if to, ok := outside[stem]; ok {
		return to + "." + kind, true
	}
	rest, ok := strings.CutPrefix(stem, "blk.")
	number, part, ok2 := strings.Cut(rest, ".")
	if i, err := strconv.Atoi(number); !ok || !ok2 || err != nil || i < 0 || i >= blocks || strconv.Itoa(i) != number {
		return "", false
	}
	to, ok := a.block[part]
	if !ok {
		to, ok = a.experts[part]
	}
	return "model.layers." + number + "." + to + "." + kind, ok
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// addExperts adds the matrices of all experts of a block, which are one tensor.
func (m *model) addExperts(name string, t gguf.Tensor, c config) error {
	n := c.int("num_experts")
	if len(t.Shape) != 3 || t.Shape[0] != n {
		return fmt.Errorf("tensor %.100s: shape %v, want three dimensions for %d experts", t.Name, t.Shape, n)
	}
	rows := t.Shape[1]
	for i := range n {
		m.add(fmt.Sprintf(name, i), t.Shape[1:], view{stored: t, first: i * rows, rows: rows, cols: t.Cols()})
	}
	return nil
}

func (m *model) add(name string, shape []int, v view) {
	m.views[name] = v
	m.tensors = append(m.tensors, checkpoint.Tensor{
		Name: name, DType: tensor.BF16, Shape: shape,
		File: filepath.Base(m.file.Holds(v.stored)), Offset: v.stored.Offset,
		Size: int64(v.rows) * int64(v.cols) * 2,
	})
}

// grain is the elements that are read and dequantised at a time.
const grain = 1 << 18

// ReadAt reads bytes of a tensor, whole elements of bfloat16.
func (m *model) ReadAt(t checkpoint.Tensor, dst []byte, off int64) error {
	if off%2 != 0 || len(dst)%2 != 0 {
		panic(fmt.Sprintf("hf: ReadAt of %s: bytes %d to %d, want whole elements of 2 bytes", t.Name, off, off+int64(len(dst))))
	}
	v := m.views[t.Name]
	lo := int(off / 2) // elements
	hi := lo + len(dst)/2
	first, last := lo/v.cols, (hi+v.cols-1)/v.cols // rows
	var once sync.Once
	var failed error
	parallel.For(last-first, max(1, grain/v.cols), func(from, to int) {
		from, to = first+from, first+to
		row := make([]float32, (to-from)*v.cols)
		if err := v.read(m.file, row, from); err != nil {
			once.Do(func() { failed = err })
			return
		}
		begin, end := max(lo, from*v.cols), min(hi, to*v.cols)
		gguf.BF16.Quantize(dst[2*(begin-lo):2*(end-lo)], row[begin-from*v.cols:end-from*v.cols])
	})
	return failed
}

// read writes as many of v's rows as dst takes, from one on.
func (v view) read(f *gguf.File, dst []float32, from int) error {
	n := len(dst) / v.cols
	err := error(nil)
	switch {
	case len(v.stored.Shape) == 1:
		all := make([]float32, v.rows)
		err = f.ReadRows(v.stored, all, 0, 1)
		for i := range dst {
			dst[i] = all[v.row(from+i)]
		}
	case v.head == 0:
		err = f.ReadRows(v.stored, dst, v.first+from, v.first+from+n)
	default:
		for i := 0; i < n && err == nil; i++ {
			at := v.row(from + i)
			err = f.ReadRows(v.stored, dst[i*v.cols:(i+1)*v.cols], at, at+1)
		}
	}
	if v.shift != 0 {
		for i := range dst {
			dst[i] += v.shift
		}
	}
	return err
}

// row returns the row of the file's tensor that is v's row r. In a head of d
// rows llama.cpp has pair (i, i+d/2) side by side, at 2i and 2i+1.
func (v view) row(r int) int {
	if v.head == 0 {
		return v.first + r
	}
	half := v.head / 2
	in := r % v.head
	return v.first + r - in + 2*(in%half) + in/half
}
