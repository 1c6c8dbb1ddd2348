package engine

// Failure is what operations panic with where the device that computes fails: its memory
// does not suffice, or it is lost. Operations have no errors of their own: on a device
// they are under way when they return. Whoever runs many of them turns it into an error
// with Recover.
type Failure struct{ Err error }

func (f *Failure) Error() string { return f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }

// Recover, deferred, turns a panic with a Failure into *err. Any other panic goes on.
func Recover(err *error) {
	switch r := recover().(type) {
	case nil:
	case *Failure:
		*err = r.Err
	default:
		panic(r)
	}
}
