"""The reviewer's battery: what a sceptical reader would try, each with figures.

`python -m paper.reviewer all --out DIR`
"""
