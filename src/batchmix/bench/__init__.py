"""The benchmark: mixing, losses, sampling and whole training steps, measured beside the other libraries.

``run`` measures and makes a record; ``goals``, ``table``, ``page`` and ``picture`` read records and nothing
else, so that a page can be made again from what was measured.
"""
