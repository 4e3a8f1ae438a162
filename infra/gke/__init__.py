"""What only a cluster that the stack makes has: maintenance, quotas of the project, logs, states that are refused.

Belongs here: what Google Cloud has beside the cluster, and the rules for it. Does not: what is inside a cluster
(``environment``), which is the same on every one.
"""
