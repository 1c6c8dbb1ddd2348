// Package hf reads a GGUF file as the Hugging Face folder that it was made
// from, and writes a GGUF file of such a folder.
//
//	Open    returns the folder's inventory: config.json, tokenizer.json and
//	        tensors under their Hugging Face names, read and dequantised on demand
//	Export  writes a GGUF file that llama.cpp loads
//
// The tensors of an opened file are bfloat16, rounded to nearest even from
// their dequantised float32 values, whatever they are stored as: what
// transformers makes of the file when asked for bfloat16.
//
// # What llama.cpp changes, and Open undoes
//
//	llama     rows of q and k are permuted: llama.cpp turns neighbouring pairs
//	          (2i, 2i+1) of a head where transformers turns (i, i+dim/2)
//	gemma     norms are stored plus 1
//	qwen3moe  all experts of a block are one tensor of three dimensions
//	llama 3   rope_freqs holds what the factors of rope_scaling come to
//
// What is not known is refused by name, an architecture, a key of the
// architecture or the tokenizer, a tensor: to ignore it could be to compute
// another model. Keys of other namespaces (general, quantize, …) describe the
// file and are not read.
package hf
