package search

import (
	"context"
	"encoding/json"
)

// Queue is a Store of which others, on any machine, carry out the work.
type Queue interface {
	Store

	// Order asks for work that is neither finished nor asked for yet, and returns
	// at once.
	Order(ctx context.Context, orders ...Order) error

	// Ask orders, and calls each with every answer as it comes. It returns when all
	// are there, or with the error of the first order that was given up.
	Ask(ctx context.Context, orders []Order, each func(i int, value string) error) error

	// Withdraw takes back orders that nobody has begun.
	Withdraw(ctx context.Context, orders ...Order) error

	// Keep keeps a text that orders refer to by its hash; Text returns it.
	Keep(ctx context.Context, hash string, text []byte) error
	Text(ctx context.Context, hash string) ([]byte, error)
}

// Local is a Store whose work is done here, also if it is a Queue.
type Local struct{ Store }

// Order is work to be done by somebody: one record of a study.
type Order struct {
	Study string // in the store; it is made if need be
	Kind  string // of the record, which also says how Args are read
	Key   string
	What  string // for people
	Model Weights
	Args  json.RawMessage
	Later bool // nobody waits for it yet
}

// Weights say which model an order needs.
type Weights struct {
	Name  string `json:"name"` // where whoever orders has it from
	ID    string `json:"id"`   // a hash
	Bytes int64  `json:"bytes"`
}
