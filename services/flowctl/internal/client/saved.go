package client

// Saved is the login of this machine; its fields are empty when there is none.
func Saved() (Login, error) { return saved() }
