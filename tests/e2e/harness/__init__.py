"""What the tests and the demo stand on: real processes, the way to end them, and a client of dstack's API."""
