"""Fused loops behind ``core.blending``: the same results, in one pass over memory.

``cpu`` decides and prepares; ``loops`` holds what numba compiles, and is only imported where it is used.
"""
