package batch

import (
	"slices"

	"github.com/crepe-llm/crepe/model"
)

// prefix is a text that has ended, kept for those that begin as it does.
type prefix struct {
	ids   []int32
	alike int
	cache *model.Cache
	bytes int64
}

// maxPrefixes bounds how many are kept, and so what finding one costs.
const maxPrefixes = 64

// prefixes are those that are kept, the one that was used last at the end.
type prefixes struct {
	list  []*prefix
	bytes int64
}

// add keeps e. Where others can go on from the middle of it, those that it begins
// with are of no more use.
func (p *prefixes) add(e *prefix, rewinds bool) {
	for _, o := range slices.Clone(p.list) {
		n := len(o.ids)
		if rewinds && o.alike == e.alike && n <= len(e.ids) && slices.Equal(o.ids, e.ids[:n]) {
			p.remove(o)
		}
	}
	p.list = append(p.list, e)
	p.bytes += e.bytes
	if len(p.list) > maxPrefixes {
		p.dropOldest()
	}
}

func (p *prefixes) remove(e *prefix) {
	i := slices.Index(p.list, e)
	p.list = slices.Delete(p.list, i, i+1)
	p.bytes -= e.bytes
}

// touch says that e is of use.
func (p *prefixes) touch(e *prefix) {
	p.remove(e)
	p.list = append(p.list, e)
	p.bytes += e.bytes
}

// dropOldest gives up the one that was not used for longest; false if there is none.
func (p *prefixes) dropOldest() bool {
	if len(p.list) == 0 {
		return false
	}
	p.remove(p.list[0])
	return true
}

func (p *prefixes) clear() { *p = prefixes{} }
