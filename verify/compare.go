package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/crepe-llm/crepe/checkpoint"
)

// compareOthers holds all but the pruned Linears to the dense model: names, types
// and shapes of all tensors, bytes of those that are not pruned, other files.
func (v *verifier) compareOthers(ctx context.Context) error {
	plan, err := checkpoint.NewPlan(v.Dense, 0)
	if err != nil {
		return err
	}
	linears := map[string]bool{}
	for b := range v.m.Blocks() {
		for _, l := range v.m.Linears(b) {
			linears[l.Name+".weight"] = true
		}
	}
	rotates := v.resolved.Rotate != nil
	for _, want := range v.Dense.Tensors() {
		if err := ctx.Err(); err != nil {
			return err
		}
		got, ok := v.inv.Tensor(want.Name)
		switch {
		case !ok:
			v.found(want.Name, "missing, the dense model has it")
		case got.DType != want.DType || !slices.Equal(got.Shape, want.Shape):
			v.found(want.Name, "%v %v, the dense model has %v %v", got.DType, got.Shape, want.DType, want.Shape)
		case linears[want.Name] || rotates: // a Linear has been compared
		case v.rounded() && v.inv.Packed(got): // integers
		default:
			if err := v.compareTensor(got, want); err != nil {
				return err
			}
		}
	}
	for _, t := range v.inv.Tensors() {
		if _, ok := v.Dense.Tensor(t.Name); !ok && !(rotates && t.Name == "lm_head.weight") {
			v.found(t.Name, "not a tensor of the dense model")
		}
	}
	for _, a := range plan.Aux {
		if err := ctx.Err(); err != nil {
			return err
		}
		if rotates && a.Path == "config.json" { // it says that embedding and head are not one
			continue
		}
		if err := v.compareFile(a.Path); err != nil {
			return err
		}
	}
	return nil
}

// chunk is how many bytes are compared at a time.
const chunk = 4 << 20

func (v *verifier) compareTensor(got, want checkpoint.Tensor) error {
	a, b := make([]byte, min(chunk, want.Size)), make([]byte, min(chunk, want.Size))
	for at := int64(0); at < want.Size; at += int64(len(a)) {
		n := min(int64(len(a)), want.Size-at)
		a, b = a[:n], b[:n]
		if err := errors.Join(v.inv.ReadAt(got, a, at), v.Dense.ReadAt(want, b, at)); err != nil {
			return err
		}
		if i := differing(a, b); i >= 0 {
			v.found(want.Name, "not pruned, but differs from the dense model's from byte %d on", at+int64(i))
			break
		}
	}
	v.bar.Add(want.Size)
	return nil
}

// compareFile compares a file that is carried over byte for byte.
func (v *verifier) compareFile(path string) error {
	a, err := v.inv.OpenFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		v.found(path, "missing, the dense model's folder has it")
		return nil
	}
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := v.Dense.OpenFile(path)
	if err != nil {
		return err
	}
	defer b.Close()
	x, y := make([]byte, 1<<16), make([]byte, 1<<16)
	for at := int64(0); ; {
		n, err := readFull(a, x)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", v.dir, path, err)
		}
		m, err := readFull(b, y)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", v.Dense.Dir(), path, err)
		}
		if i := differing(x[:n], y[:m]); i >= 0 {
			v.found(path, "differs from the dense model's file from byte %d on", at+int64(i))
			return nil
		}
		if at += int64(n); n < len(x) {
			return nil
		}
	}
}

// readFull fills buf, or reads what is left.
func readFull(r io.Reader, buf []byte) (int, error) {
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// differing returns where a and b begin to differ, -1 if they are equal.
func differing(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
