"""A stand-in for Pulumi's Google Cloud provider, for tests only. It is not Google Cloud, and says nothing about it.

The real Pulumi engine starts `plugin/pulumi-resource-gcp` in place of the real plugin. What it answers is a
model of what we know: the argument types of `pulumi_gcp`, the rules written down in `model`, the error texts
in `faults`. It proves that our program works with the engine from end to end, orders its resources well, and
gives Google's provider only keys that this provider has. It cannot prove that Google would accept a value.

The "cloud" is a file. The cluster that it "creates" is a Kubernetes cluster that is already there: its
endpoint is that cluster's API server, and deleting it deletes there what the stack made. No address of
Google's is ever used.
"""
