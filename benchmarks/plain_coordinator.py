"""``python -m benchmarks.plain_coordinator FOLDER``: the coordinator image with its TLS taken away, to see what TLS costs.

Nothing that is delivered can do this: the image itself always encrypts.
"""

from __future__ import annotations

import sys

from coordinator_image import __main__ as image


def main() -> int:
    image.server_context = lambda *_: None  # type: ignore[assignment,misc]
    return image.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
