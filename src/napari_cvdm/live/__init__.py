"""Following a microscope: always the newest frame, reconstructed in few steps; older ones are dropped and counted.

``mailbox`` and ``folder`` are where frames come from and load no torch; ``live`` reconstructs.
"""
