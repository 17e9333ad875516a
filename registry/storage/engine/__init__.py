"""Connections, schema, revisions and errors of the database."""
