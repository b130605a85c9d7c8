"""Behind ``core.blending``: the same results, in as few passes over memory as the machine allows.

``selected`` chooses. ``cpu`` takes what ``fused`` hands to the compiled ``loops``, which are only imported
where they are used; ``gpu`` is the same for Triton; ``blocks`` and ``pixels`` do it with torch's operations.
"""
