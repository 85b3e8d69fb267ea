"""The equations of CVDM (arXiv 2312.02246) over tensors and callables; no network is known here.

Everything is per pixel. `neg_log_gamma` is n = -log gamma = lambda(x) T(t). gamma and 1 - gamma
are always computed from it, never by subtraction. The symbols are those of DESIGN: gamma, beta,
rate (lambda), clock (T, the integral of tau).
"""
