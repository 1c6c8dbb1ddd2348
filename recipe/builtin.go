package recipe

import (
	"embed"
	"fmt"
	"strings"
)

// BuiltinPrefix begins the name of a recipe that ships with the program, where the path
// of a file may stand.
const BuiltinPrefix = "builtin:"

// Builtin is a recipe that was found on a real model (docs/real-models.md) and ships
// with the program: method, parameters and target, without texts.
type Builtin struct {
	Name    string
	Model   string // that it was found on
	Class   string // of the model: the architecture's name
	Weights int64  // of the model's Linears that are pruned
	Recipe  Recipe
}

//go:embed builtin/*.yaml
var builtinFiles embed.FS

// found lists the models of the built-in recipes, by the beginning of their names.
var found = []Builtin{
	{Name: "smollm2-135m", Model: "SmolLM2-135M-Instruct", Class: "LlamaForCausalLM", Weights: 106168320},
}

// Builtins returns the recipes that ship with the program, by name.
func Builtins() []Builtin {
	files, err := builtinFiles.ReadDir("builtin")
	if err != nil {
		panic("recipe: " + err.Error()) // the folder is in the program
	}
	var all []Builtin
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".yaml")
		for _, b := range found {
			if !strings.HasPrefix(name, b.Name+"-") {
				continue
			}
			data, err := builtinFiles.ReadFile("builtin/" + f.Name())
			if err == nil {
				b.Recipe, err = Parse(data)
			}
			if err != nil {
				panic(fmt.Sprintf("recipe: %s%s: %v", BuiltinPrefix, name, err)) // a test reads all
			}
			b.Name = name
			all = append(all, b)
		}
	}
	return all
}

// readBuiltin returns the built-in recipe of that name.
func readBuiltin(name string) (Recipe, error) {
	var names []string
	for _, b := range Builtins() {
		if b.Name == name {
			return b.Recipe, nil
		}
		names = append(names, b.Name)
	}
	return Recipe{}, fmt.Errorf("%s%s: no such recipe, want one of %s", BuiltinPrefix, name, strings.Join(names, ", "))
}
