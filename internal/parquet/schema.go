package parquet

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// node is a part of the schema below a top-level column.
type node struct {
	name       string
	path       []string // names from the top-level column on
	typ        int64    // physical type; group for none
	repetition int64
	list       bool // annotated as a list: its one child is repeated
	rep, def   int  // levels of what is there down to this node
	children   []*node

	leaves []*node // this one, or those below
	column *column // of a leaf, in the row group at work
}

// Bounds on a schema; the datasets have 12 columns 4 deep at most.
const (
	maxNesting = 32
	maxLeaves  = 1 << 10 // below one top-level column
)

// schemaElement is a node of the schema as it is stored, depth first.
type schemaElement struct {
	name       string
	typ        int64
	repetition int64
	children   int64
	list, keys bool // annotated as a list; as a map
}

func parseSchemaElement(d *decoder) schemaElement {
	e := schemaElement{typ: group}
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 1 && typ == typeI32:
			e.typ = d.int()
		case id == 3 && typ == typeI32:
			e.repetition = d.int()
		case id == 4 && typ == typeBinary:
			e.name = string(d.binary())
		case id == 5 && typ == typeI32:
			e.children = d.int()
		case id == 6 && typ == typeI32: // ConvertedType
			kind := d.int()
			e.list, e.keys = e.list || kind == 3, e.keys || kind == 1 || kind == 2
		case id == 10 && typ == typeStruct: // LogicalType, a union
			d.fields(func(id int64, _ byte) bool {
				e.list, e.keys = e.list || id == 3, e.keys || id == 2
				return false
			})
		default:
			return false
		}
		return true
	})
	return e
}

// find returns the top-level column of that name, of which there is one.
func find(schema []schemaElement, column string) (*node, error) {
	if len(schema) == 0 {
		return nil, errors.New("metadata: no schema")
	}
	var names strings.Builder
	at, i := 0, 1
	for range schema[0].children {
		if i >= len(schema) {
			return nil, errors.New("metadata: schema ends early")
		}
		if schema[i].name == column {
			if at > 0 {
				return nil, fmt.Errorf("two columns of the name %s", column)
			}
			at = i
		}
		if names.Len() < 200 {
			fmt.Fprintf(&names, " %.40q", schema[i].name)
		}
		for open := int64(1); open > 0 && i < len(schema); i++ { // over it and all below it
			open += schema[i].children - 1
		}
	}
	if at == 0 {
		return nil, fmt.Errorf("no column %s; there are%s", column, cmp.Or(names.String(), " none"))
	}
	n, _, err := grow(schema, at, &node{})
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", column, err)
	}
	return n, nil
}

// grow makes the node of element i, below parent, and all below it. next is the
// index of the element after them.
func grow(schema []schemaElement, i int, parent *node) (n *node, next int, err error) {
	if i >= len(schema) {
		return nil, i, errors.New("schema ends early")
	}
	e := schema[i]
	n = &node{
		name: e.name, path: append(parent.path[:len(parent.path):len(parent.path)], e.name),
		typ: e.typ, repetition: e.repetition, list: e.list, rep: parent.rep, def: parent.def,
	}
	switch e.repetition {
	case required:
	case optional:
		n.def++
	case repeated:
		n.def++
		n.rep++
	default:
		return nil, i, fmt.Errorf("repetition %d", e.repetition)
	}
	switch {
	case len(n.path) > maxNesting:
		return nil, i, fmt.Errorf("nested more than %d deep", maxNesting)
	case e.keys:
		return nil, i, errors.New("a map, which is not read")
	case (e.typ == group) != (e.children > 0):
		return nil, i, fmt.Errorf("physical type %d with %d fields", e.typ, e.children)
	case e.typ == group:
	case e.typ != byteArray && e.typ != int32Type && e.typ != int64Type:
		return nil, i, fmt.Errorf("physical type %s; known: integers and strings", nameOf(typeNames[:], e.typ))
	default:
		n.leaves = []*node{n}
	}
	next = i + 1
	for range e.children {
		var child *node
		if child, next, err = grow(schema, next, n); err != nil {
			return nil, next, err
		}
		n.children = append(n.children, child)
		if n.leaves = append(n.leaves, child.leaves...); len(n.leaves) > maxLeaves {
			return nil, next, fmt.Errorf("more than %d fields", maxLeaves)
		}
	}
	if n.list && (len(n.children) != 1 || n.children[0].repetition != repeated) {
		return nil, next, errors.New("a list without one repeated field")
	}
	return n, next, nil
}
