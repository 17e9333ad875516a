"""Registries as files: export, import and validation of rows."""
