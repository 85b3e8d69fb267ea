"""The equations of CVDM (arXiv 2312.02246) over tensors and callables; no network is known here.

Everything is per pixel. `exponent` is n = -log gamma = lambda(x) T(t); gamma and 1 - gamma are always formed from it, never
by subtraction. DESIGN symbols: gamma, beta, rate (lambda), clock (T, the integral of tau).
"""
