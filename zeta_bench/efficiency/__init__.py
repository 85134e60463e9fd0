"""Speed and memory benches: ``zeta-bench bench speed|memory``.

What is timed (`contenders`), on which inputs (`inputs`), how time (`timing`) and memory (`memory`) are taken, and how
points become records of kind bench (`bench`, `series`). Two levels are never ranked together: "op" is the attention
core on ready q, k, v; "module" is a registered variant's whole forward from x, projections included.
"""
