"""The sample crawl and what generates it."""
