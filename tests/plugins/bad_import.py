"""Imports a module nobody has."""

import a_module_nobody_has


class BadImport:
    pass
