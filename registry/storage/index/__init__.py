"""The pgvector index of a large registry in Postgres."""
