"""DDO templates: what each kind of asset looks like, in JSON that people can read and change.

A template is both form and schema: :func:`render` fills it in, :func:`validate` checks that a document has its shape.
It holds no code and no secrets; identities, checksums and signatures are the business of ``nevermined_fl.assets``.
"""

from workflows.errors import (
    InvalidDocument,
    InvalidValue,
    MissingValue,
    TemplateError,
    UnknownTemplate,
    UnknownValue,
)
from workflows.templates import names, render, validate

__all__ = [
    "InvalidDocument",
    "InvalidValue",
    "MissingValue",
    "TemplateError",
    "UnknownTemplate",
    "UnknownValue",
    "names",
    "render",
    "validate",
]
