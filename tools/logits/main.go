// Command logits writes a model's logits for tools/oracle_output.py to
// compare with transformers'.
//
//	go run ./tools/logits MODEL IDS.safetensors N OUT.safetensors
//
// computes in float32 on the first N rows of input_ids and writes "logits",
// float32 [N, seqlen, vocab].
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/corpus"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: logits MODEL IDS.safetensors N OUT.safetensors")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, ids, count, out string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	inv, err := checkpoint.Open(dir)
	if err != nil {
		return err
	}
	defer inv.Close()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		return err
	}
	src, err := corpus.Parse(ids)
	if err != nil {
		return err
	}
	samples, seqLen, err := src.Shape()
	if err != nil {
		return err
	}
	rows, err := src.Windows(samples, seqLen)
	if err != nil {
		return err
	}
	rows = rows[:min(n, len(rows))]
	var all []float32
	for _, row := range rows {
		y, err := logits(m, row)
		if err != nil {
			return err
		}
		all = append(all, y.Data...)
	}
	return write(out, all, len(rows), len(rows[0]), m.Config.Vocab)
}

func logits(m *model.Model, ids []int32) (tensor.Matrix, error) {
	x, y := m.NewMat(len(ids)), tensor.NewMatrix(len(ids), m.Config.Vocab)
	if err := m.Embed(x, ids); err != nil {
		return y, err
	}
	st := m.NewState()
	for b := range m.Blocks() {
		block, err := m.LoadBlock(b)
		if err != nil {
			return y, err
		}
		if err := block.Run(st, x, model.Mode{}); err != nil {
			return y, err
		}
		block.Release()
	}
	head, err := m.LoadHead()
	if err != nil {
		return y, err
	}
	all := m.Engine().NewMat(y.Rows, y.Cols)
	if err := head.Logits(all, x); err != nil {
		return y, err
	}
	m.Engine().Download(y, all)
	return y, nil
}

func write(path string, data []float32, shape ...int) error {
	header, err := json.Marshal(map[string]any{"logits": map[string]any{
		"dtype": "F32", "shape": shape, "data_offsets": []int{0, 4 * len(data)},
	}})
	if err != nil {
		return err
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	file = append(file, header...)
	for _, v := range data {
		file = binary.LittleEndian.AppendUint32(file, math.Float32bits(v))
	}
	return os.WriteFile(path, file, 0o666)
}
