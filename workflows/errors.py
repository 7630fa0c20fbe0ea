"""What can be wrong with a template, with the values for it, or with a document that should look like it."""

from __future__ import annotations

__all__ = ["InvalidDocument", "InvalidValue", "MissingValue", "TemplateError", "UnknownTemplate", "UnknownValue"]


class TemplateError(ValueError):
    """Base of all errors of this package.

    Args:
        message: what was expected and what came.
        path: where, e.g. ``service[0].attributes.main.files[1].checksum``; empty when it is not about one place.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class UnknownTemplate(TemplateError):
    """There is no template of that name."""


class MissingValue(TemplateError):
    """A placeholder got no value."""


class UnknownValue(TemplateError):
    """A value was given for which the template has no placeholder."""


class InvalidValue(TemplateError):
    """A value is not of its placeholder's type."""


class InvalidDocument(TemplateError):
    """A document does not have its template's shape."""
