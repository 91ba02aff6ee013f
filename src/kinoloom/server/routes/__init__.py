"""Which addresses does the API have? One module for each kind of thing, each with a `router`."""
