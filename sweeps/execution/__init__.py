"""How tasks are run: in this process or on Ray, guarded and counted."""
