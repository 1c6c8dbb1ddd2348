package cuda

// Memory implements engine.Own: Options.Memory, or what is free and what is taken already.
func (d *Device) Memory() int64 {
	free, _, err := d.MemoryInfo()
	if err != nil {
		free = 0 // what comes next fails with the reason
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if all := free + d.taken; d.limit == 0 || all < d.limit {
		return all
	}
	return d.limit
}
