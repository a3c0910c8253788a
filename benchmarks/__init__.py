"""Measurements of the framework itself; they assert nothing, because times depend on the machine."""
