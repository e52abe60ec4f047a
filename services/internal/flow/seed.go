package flow

// seedOf gives the random seed of a step: FNV-1a over execution, node and iteration, then mixed. It is part of what recorded executions rely on: don't change it.
func seedOf(execution, node, iteration string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{execution, node, iteration} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
