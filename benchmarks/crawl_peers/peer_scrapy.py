"""Scrapy's program: follows all links of a page, as its tutorial does; robots.txt obeyed, no delay.

`peer_scrapy.py COUNT URL…`
"""

import sys
from collections.abc import Iterator

import scrapy
from _counting import Count
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import CloseSpider

count = Count(int(sys.argv[1]))


def parse(spider: scrapy.Spider, response: scrapy.http.Response) -> Iterator[object]:
    """Parse a page: its title and its links."""
    if count.page():
        raise CloseSpider("enough")
    yield {"url": response.url, "title": response.css("title::text").get()}
    yield from response.follow_all(css="a")


Bench = type("Bench", (scrapy.Spider,), {"name": "bench", "start_urls": sys.argv[2:], "parse": parse})

process = CrawlerProcess(
    {
        "LOG_LEVEL": "ERROR",
        "ROBOTSTXT_OBEY": True,
        "DOWNLOAD_DELAY": 0,
        "CONCURRENT_REQUESTS": 32,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
        "COOKIES_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
    }
)
process.crawl(Bench)
process.start()
