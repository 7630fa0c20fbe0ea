"""Launcher: one process per provider that owns its jobs, their files, their records and their payment.

What belongs: everything between a gateway's "run this agreement" and the money. What does not: who may run what
(``permissions``), how a process is shut in (``backends``), what happens inside a session (``driver``, ``participant``).
"""
