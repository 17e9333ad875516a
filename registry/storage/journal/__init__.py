"""The journal of ingest runs."""
