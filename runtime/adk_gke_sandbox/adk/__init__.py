"""ADK's side: the executor, an outcome as ADK's result, and the plugin. The only folder that imports ADK."""
