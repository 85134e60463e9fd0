"""Analyses without training: ``zeta-bench analyse locality|distortion``.

What fixes the meaning of a figure (`request`), where the points come from (`points`), how many of the true neighbours
a Z-order window or a projection keeps (`overlap`, `measures`), and how that becomes records of kind analysis
(`series`).
"""
