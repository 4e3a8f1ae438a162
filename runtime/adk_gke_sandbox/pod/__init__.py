"""What runs inside the sandbox: standard library only, any CPython from 3.8 on; nothing here runs in the agent."""
