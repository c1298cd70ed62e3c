"""One package or module per technology that keeps the promises of a port."""
