"""The reviewer's battery: what a sceptical reader would try, each with figures.

`python -m benchmarks.reviewer all --out DIR`
"""
