// Package gguf reads and writes GGUF, the file format of llama.cpp: metadata
// and tensors, which may be quantised in blocks.
//
//	Open     reads and checks the heads of a file or of all its splits: a File
//	File     reads rows of tensors, dequantised to float32
//	Header   is what is written before the data of a new file
//	Quantize turns float32 into the blocks of a Type
//
// It knows nothing of models: package gguf/hf says what the keys and tensors
// mean.
//
// A file is, little-endian,
//
//	4 bytes  "GGUF"
//	uint32   version: 2 or 3, which are alike
//	uint64   number of tensors
//	uint64   number of keys
//	         keys: string, uint32 kind, value
//	         tensors: string, uint32 dimensions, uint64 each, uint32 type, uint64 offset
//	         padding to general.alignment (32), then the tensors' data
//
// where a string is its length in bytes, uint64, and UTF-8, and an array is the
// kind of its elements, uint32, their number, uint64, and they themselves.
//
// Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The
// dequantised values are those of the Python library gguf 0.19, bit for bit.
package gguf
