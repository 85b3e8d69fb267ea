"""What goes wrong in an export, in one line each."""


class ExportError(ValueError):
    """A package that cannot be made, and why."""
