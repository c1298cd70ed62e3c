"""What the benchmarks need of PostgreSQL: a server, its counters, and the floor on it."""
