// Package onig matches regular expressions of Oniguruma 6.9.10, the engine of
// Hugging Face's library tokenizers, in its default syntax.
//
// A pattern is parsed as Oniguruma parses it (parse.go, class.go), with its
// Unicode 16.0 tables and its case folding, becomes a program (compile.go) and
// is matched by backtracking (match.go). What has another meaning in other
// engines has Oniguruma's here: && and nested brackets in a class, ^ and $ at
// every line, (?m) for a dot that matches a line feed, {n}+ as a repeat of a
// repeat, {2,1} as a possessive {1,2}.
//
// What is not supported is an error that names it: calls of groups and
// recursion, conditionals, absent operators, callouts, text segments (\X, \y),
// whole-pattern options, back-references that ignore case or stand in an empty
// repeat, and patterns of more than 64 KiB.
//
// Backtracking takes exponential time with some patterns. So matching counts
// steps, and where they are spent Each returns a *LimitError.
package onig
