"""The wire over HTTPS: the coordinator serves with aiohttp, the participant asks with httpx, paths are in ``wire``."""
