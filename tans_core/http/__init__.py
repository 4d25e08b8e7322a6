"""The warm HTTP service: searches and scans over HTTP, from the release in production. The only importer of FastAPI."""
