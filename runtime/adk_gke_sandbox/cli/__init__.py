"""The command line: ``adk-gke-sandbox``."""
