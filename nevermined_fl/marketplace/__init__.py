"""The user's side: what a data scientist and a provider do on the marketplace, one call per step.

Here belongs what the CLI, a script or a notebook calls. Not here: what a provider's own processes do (``launcher``) and
how a chain or a gateway is spoken to below HTTP (``chain``, ``metadata``). Names are loaded on first use: web3 costs
seconds that ``--help`` should not.
"""
