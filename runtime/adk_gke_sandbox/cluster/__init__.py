"""The Kubernetes side: calls, streams, objects, and what the answers mean."""
