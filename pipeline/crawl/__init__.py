"""A focused, polite crawl into WARC files, with Scrapy doing the crawling.

Ours are the scope (``scope``), what is refused (``guard``, ``optout``), the archive that is also the state from
which a killed crawl goes on (``archive``), and the spider that ties them together.
"""
