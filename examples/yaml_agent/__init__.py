"""An agent by configuration: ``root_agent.yaml`` and the names it refers to."""
