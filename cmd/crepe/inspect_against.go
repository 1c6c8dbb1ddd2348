package main

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/session"
)

// compareMasks fills in, of every Linear of in, which is o, how its zeros compare
// with those of another model.
func (a *app) compareMasks(ctx context.Context, in *inspection, o *session.Session, name string) error {
	other, err := a.open(ctx, name, a.options(session.Auto, 0))
	if err != nil {
		return err
	}
	defer other.Close()
	if n := other.Model.Blocks(); n != o.Model.Blocks() {
		return fmt.Errorf("%s has %d blocks, %s has %d: want models of the same shapes", name, n, o.Name, o.Model.Blocks())
	}
	bar := progress.Func(a.meter.update).Start("compare zeros", int64(o.Model.Blocks()), "blocks")
	these, those := o.Model.WithExpertBytes(1), other.Model.WithExpertBytes(1) // one expert at a time
	at, here, there, total := 0, 0, 0, 0
	for b := range these.Blocks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := eachPair(these, those, b, func(l, k *model.Linear) error {
			if l.Name != k.Name || l.Rows != k.Rows || l.Cols != k.Cols {
				return fmt.Errorf("%s has %s of %d × %d where %s has %s of %d × %d: want models of the same shapes",
					name, k.Name, k.Rows, k.Cols, o.Name, l.Name, l.Rows, l.Cols)
			}
			w, err := l.Read()
			if err != nil {
				return err
			}
			v, err := k.Read()
			if err != nil {
				return err
			}
			p, q := mask.NonZero(w), mask.NonZero(v)
			n, onlyThis, onlyOther := l.Rows*l.Cols, q.Without(p).Pruned(), p.Without(q).Pruned()
			in.Linears[at].maskDifference = difference(n, onlyThis, onlyOther)
			at, total = at+1, total+n
			here, there = here+onlyThis, there+onlyOther
			l.Unload()
			k.Unload()
			return nil
		})
		if err != nil {
			return err
		}
		bar.Add(1)
	}
	in.Against = &maskComparison{name, *difference(total, here, there)}
	return nil
}

func difference(n, onlyThis, onlyOther int) *maskDifference {
	share := func(k int) float64 { return float64(k) / float64(n) }
	return &maskDifference{Equal: share(n - onlyThis - onlyOther), OnlyThis: share(onlyThis), OnlyOther: share(onlyOther)}
}

// eachPair calls f with the Linears of block b of two models, one after the other.
func eachPair(m, other *model.Model, b int, f func(l, k *model.Linear) error) error {
	block, err := m.LoadBlock(b)
	if err != nil {
		return err
	}
	defer block.Release()
	second, err := other.LoadBlock(b)
	if err != nil {
		return err
	}
	defer second.Release()
	ours, theirs := block.Linears(), second.Linears()
	if len(ours) != len(theirs) {
		return fmt.Errorf("block %d has %d and %d Linears: want models of the same shapes", b, len(ours), len(theirs))
	}
	for i := range ours {
		if err := f(ours[i], theirs[i]); err != nil {
			return err
		}
	}
	return nil
}
