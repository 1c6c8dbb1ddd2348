package checkpoint

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/tensor"
)

// layout prints a plan's shards: name, then tensors.
func layout(p *Plan) string {
	var parts []string
	for _, s := range p.Shards {
		part := s.Name + ":"
		for _, x := range s.Tensors {
			part += " " + x.Name
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

func TestPlanShards(t *testing.T) {
	inv := open(t, folder(t, sharded(t)))
	const all = "embed 0.q 0.norm 1.q 1.norm steps"
	for _, c := range []struct {
		maxShard int64
		want     string
	}{
		{0, "model.safetensors: " + all},
		{584, "model.safetensors: " + all},
		{583, "model-00001-of-00002.safetensors: embed 0.q 0.norm 1.q 1.norm; model-00002-of-00002.safetensors: steps"},
		{416, "model-00001-of-00002.safetensors: embed 0.q 0.norm; model-00002-of-00002.safetensors: 1.q 1.norm steps"},
		// The embedding's 256 bytes exceed 160 and stand alone.
		{160, "model-00001-of-00004.safetensors: embed; model-00002-of-00004.safetensors: 0.q 0.norm; model-00003-of-00004.safetensors: 1.q 1.norm; model-00004-of-00004.safetensors: steps"},
		{1, "model-00001-of-00006.safetensors: embed; model-00002-of-00006.safetensors: 0.q; model-00003-of-00006.safetensors: 0.norm; " +
			"model-00004-of-00006.safetensors: 1.q; model-00005-of-00006.safetensors: 1.norm; model-00006-of-00006.safetensors: steps"},
	} {
		got := layout(plan(t, inv, c.maxShard))
		if got != c.want {
			t.Errorf("shards of %d bytes:\n%s\nwant\n%s", c.maxShard, got, c.want)
		}
	}
	_, err := NewPlan(inv, -1)
	wantError(t, err, "-1 bytes")
}

// TestPlanKeepsFile: the head of a checkpoint in one file is planned as it is.
func TestPlanKeepsFile(t *testing.T) {
	for _, dir := range []string{"testdata/golden", "../testdata/fixtures/llama-mha"} {
		inv := open(t, dir)
		p := plan(t, inv, 0)
		if len(p.Shards) != 1 || p.Shards[0].Size != inv.files[0].size {
			t.Fatalf("%s: %d shards, the first of %d bytes, want 1 of %d", dir, len(p.Shards), p.Shards[0].Size, inv.files[0].size)
		}
		head := make([]byte, len(p.Shards[0].head))
		if _, err := inv.files[0].f.ReadAt(head, 0); err != nil {
			t.Fatal(err)
		}
		if string(head) != string(p.Shards[0].head) {
			t.Errorf("%s: head\n%s\nwant\n%s", dir, p.Shards[0].head, head)
		}
	}
}

// TestPlanAligns: an odd number of bytes before a wider type, which happens
// when shards are joined, reorders them.
func TestPlanAligns(t *testing.T) {
	inv := open(t, folder(t, map[string]string{
		"a.safetensors": string(safetensorsFile(t, 1, []spec{{"half", tensor.BF16, []int{3}}, {"byte", tensor.U8, []int{1}}})),
		"b.safetensors": string(safetensorsFile(t, 2, []spec{{"full", tensor.F32, []int{1}}, {"half2", tensor.BF16, []int{1}}})),
		indexName:       `{"weight_map": {"half": "a.safetensors", "full": "b.safetensors"}}`,
	}))
	p := plan(t, inv, 0)
	if got, want := layout(p), "model.safetensors: full half half2 byte"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	at := int64(len(p.Shards[0].head))
	for _, x := range p.Shards[0].Tensors {
		if x.Offset != at || x.Offset%int64(x.DType.Size()) != 0 {
			t.Errorf("%s at byte %d, want %d", x.Name, x.Offset, at)
		}
		at += x.Size
	}
	if at != p.Shards[0].Size {
		t.Errorf("tensors end at byte %d of %d", at, p.Shards[0].Size)
	}
}

func TestPlanIndex(t *testing.T) {
	inv := open(t, folder(t, sharded(t)))
	p := plan(t, inv, 300)
	var got struct {
		Metadata struct {
			TotalSize int64 `json:"total_size"`
			MadeBy    []any `json:"made_by"`
		}
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(p.index, &got); err != nil {
		t.Fatal(err)
	}
	if got.Metadata.TotalSize != inv.WeightBytes() || fmt.Sprint(got.Metadata.MadeBy) != "[x 2]" {
		t.Errorf("metadata %+v, want total_size %d and made_by of the input", got.Metadata, inv.WeightBytes())
	}
	for _, s := range blocks {
		if x, _ := p.Tensor(s.name); got.WeightMap[s.name] != x.File {
			t.Errorf("%s in %q, want %q", s.name, got.WeightMap[s.name], x.File)
		}
	}
}

func TestPlanMetadata(t *testing.T) {
	none := header{tensors: []Tensor{{Name: "w", DType: tensor.U8, Shape: []int{1}, Size: 1}}}
	inv := open(t, folder(t, map[string]string{singleName: string(append(none.encode(), 7))}))
	if head := string(plan(t, inv, 0).Shards[0].head); !strings.Contains(head, `{"__metadata__":{"format":"pt"},"w"`) {
		t.Errorf("head %s, want the format that transformers demands", head)
	}
	none.metadata = []pair{{"who", "me"}, {"format", "mlx"}}
	inv = open(t, folder(t, map[string]string{singleName: string(append(none.encode(), 7))}))
	if head := string(plan(t, inv, 0).Shards[0].head); !strings.Contains(head, `{"__metadata__":{"who":"me","format":"mlx"},"w"`) {
		t.Errorf("head %s, want the input's metadata", head)
	}
}

// TestPlanNameTaken: a file that would lie where the output's weights go.
func TestPlanNameTaken(t *testing.T) {
	files := sharded(t)
	const taken = "model-00001-of-00003.safetensors"
	files[taken] = string(safetensorsFile(t, 9, []spec{{"other", tensor.F32, []int{1}}}))
	p := plan(t, open(t, folder(t, files)), 300)
	if len(p.Shards) != 3 || len(p.LeftOut) != 1 || p.LeftOut[0].Path != taken {
		t.Errorf("%d shards, left out %v, want 3 and %s", len(p.Shards), p.LeftOut, taken)
	}
}

func TestPlanFingerprint(t *testing.T) {
	dir := folder(t, sharded(t))
	same := plan(t, open(t, dir), 300).Fingerprint()
	if got := plan(t, open(t, dir), 300).Fingerprint(); got != same {
		t.Errorf("fingerprint %s, then %s", same, got)
	}
	if got := plan(t, open(t, dir), 500).Fingerprint(); got == same {
		t.Errorf("other shards, same fingerprint %s", got)
	}
	write(t, dir, map[string]string{"added.txt": "x"})
	if got := plan(t, open(t, dir), 300).Fingerprint(); got == same {
		t.Errorf("one more file, same fingerprint %s", got)
	}
}
