"""Ways to a sandbox: what an execution goes through on each of them."""
